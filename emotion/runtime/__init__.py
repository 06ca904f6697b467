"""Hardware, precision, processes, signals."""
