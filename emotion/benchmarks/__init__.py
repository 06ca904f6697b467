"""What `python -m emotion.bench` measures: one file a measure, each a function of the bench's settings."""
