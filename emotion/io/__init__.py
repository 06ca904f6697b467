"""Files: atomic writes, digests, bounded reading."""
