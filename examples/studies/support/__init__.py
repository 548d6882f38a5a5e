"""What the studies share: options, progress, tables, pictures, and the texts that they read."""
