"""Hydra configs: compose them, build objects from them, check those from elsewhere."""
