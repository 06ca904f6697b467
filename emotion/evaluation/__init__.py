"""Scoring of trained classifiers."""
