"""SCP: the protocol that `scp -O` and older clients speak, and where its paths lead."""

from dunnart.scp.command import ScpCommand
from dunnart.scp.places import Places
from dunnart.scp.protocol import serve

__all__ = ["Places", "ScpCommand", "serve"]
