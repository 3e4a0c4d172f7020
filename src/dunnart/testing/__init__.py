"""Aids for tests: engines in memory, without sockets or sleep."""
