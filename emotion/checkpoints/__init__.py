"""Checkpoints: find, read, write, ensemble, and travel as portable weights."""
