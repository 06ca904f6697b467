"""Experiment trackers that a run can be told to besides its own files, each an extra of its own."""
