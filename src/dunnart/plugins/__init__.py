"""The built-in plug-ins, a file each: on the public `dunnart.server` and `dunnart.keys`, and the log's `clean`."""
