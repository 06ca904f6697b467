"""Sweeps: many runs from one command, their launchers, searches with Optuna, and the report."""
