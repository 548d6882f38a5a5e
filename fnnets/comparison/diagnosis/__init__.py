"""Finds the cause of a wrong gradient; the comparison itself does not need it."""
