"""The demo's web server."""
