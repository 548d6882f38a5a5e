"""What names the cause of a wrong gradient; the comparison itself does without it."""
