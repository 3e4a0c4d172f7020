"""The server program: its configuration, host keys and start."""
