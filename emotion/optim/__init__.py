"""Losses, parameter groups, learning-rate schedules."""
