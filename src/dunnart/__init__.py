"""dunnart: an SSH server in Python that is embeddable, asynchronous, small and fast."""

__version__ = "0.1.0"
