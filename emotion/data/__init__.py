"""Data: readers of sources, their cache, label schemes, splits, issues and the data module."""
