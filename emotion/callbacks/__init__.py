"""Lightning callbacks, which conf/callbacks configures; a search adds `pruning`."""
