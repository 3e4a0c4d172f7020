"""The built-in plug-ins, a file each, on the public API of `dunnart.server` only."""
