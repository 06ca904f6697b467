"""One file per data source; every reader returns a `Reading`."""
