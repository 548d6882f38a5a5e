"""Shared by the studies: options, progress, tables, pictures, and the texts that they read."""
