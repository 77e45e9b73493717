"""The API server as its users see it: what the commands and the Python SDK have in common."""
