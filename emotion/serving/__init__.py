"""The demo: its server and what it asks."""
