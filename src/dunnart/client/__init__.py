"""The client role on asyncio."""
