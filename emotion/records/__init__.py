"""Run records: read, write, group, archive, compare."""
