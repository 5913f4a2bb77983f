"""Recipe → plan → run. Nothing here imports torch."""
