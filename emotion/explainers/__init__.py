"""Explainers: one attribution method per file, each from faces and target classes to maps."""
