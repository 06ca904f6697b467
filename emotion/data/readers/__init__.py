"""Reader functions, one module per source format; each returns a `DataSource`."""
