"""Parts of a training run beside the network: each is a choice of conf/callbacks, by name."""
