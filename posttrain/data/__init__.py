"""Rows, their tables on disk, readers of people's files, and mixes."""
