"""Lightning loggers: metrics.csv and the experiment trackers."""
