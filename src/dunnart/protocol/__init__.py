"""The SSH protocol without I/O: RFC 4253, 4252 and 4254 as an engine of bytes, events and questions."""
