"""Metrics and statistics on predictions."""
