"""The I/O layer: sockets, event loops, processes. asyncio lives here and nowhere below."""
