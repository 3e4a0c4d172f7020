r"""dunnart: an SSH server in Python: embeddable, asynchronous, small and fast.

    import dunnart

    async def handler(session: dunnart.Session) -> None:
        await session.write(f"hello {session.user}\n")

    key = dunnart.PrivateKey.generate("ed25519")
    dunnart.Server(handler, host_keys=[key], authenticators=[dunnart.AllowAnyone()]).run()

Names are loaded when they are first used: `import dunnart` alone costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunnart.errors import ConfigError, ConnectionClosed, DunnartError, Interrupted
    from dunnart.keys import PrivateKey, PublicKey
    from dunnart.plugins.forwarding import forwarding
    from dunnart.server import (
        AllowAnyone,
        BlockingSession,
        EventSession,
        KeyCallback,
        PasswordCallback,
        PublicKeys,
        RawSession,
        ScpHandler,
        Server,
        Session,
        SessionEvents,
        SftpHandler,
        Terminal,
    )

__version__ = "0.1.0"
_HOMES = {
    "ConfigError": "errors", "ConnectionClosed": "errors", "DunnartError": "errors", "Interrupted": "errors",
    "PrivateKey": "keys", "PublicKey": "keys", "forwarding": "plugins.forwarding",
}  # fmt: skip

__all__ = [
    "AllowAnyone",
    "BlockingSession",
    "ConfigError",
    "ConnectionClosed",
    "DunnartError",
    "EventSession",
    "Interrupted",
    "KeyCallback",
    "PasswordCallback",
    "PrivateKey",
    "PublicKey",
    "PublicKeys",
    "RawSession",
    "ScpHandler",
    "Server",
    "Session",
    "SessionEvents",
    "SftpHandler",
    "Terminal",
    "forwarding",
]


def __getattr__(name: str) -> object:
    """Load a name from where it lives."""
    if name not in __all__:
        raise AttributeError(f"module 'dunnart' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"dunnart.{_HOMES.get(name, 'server')}"), name)
    globals()[name] = value
    return value
