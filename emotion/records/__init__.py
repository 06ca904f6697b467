"""Run records: read, write, query, archive, compare."""
