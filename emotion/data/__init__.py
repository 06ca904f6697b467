"""Faces: one reader per source, one in-memory form, label schemes, splits and the data module."""
