"""Lightning callbacks; each is a choice of conf/callbacks of the same name."""
