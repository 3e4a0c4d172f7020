"""What a protocol process is started with."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes

from dunnart.records import dataclass

if TYPE_CHECKING:
    from dunnart.server.authentication import Authenticator
    from dunnart.server.config import ServerConfig

# What a protocol process does not have to know is the application's.
_TRAVELS = (
    "methods", "accept_env", "algorithms", "limits", "admission", "banner", "identified", "accept_delay_seconds",
    "retry_seconds", "callback_seconds",
)  # fmt: skip
_COOKIE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Order:
    """It comes from the process that starts it, pickled.

    Attributes:
        index: the process's number; 0 is the acceptor, `workers` is how many there are.
        options: those of `ServerConfig` that concern it.
        host_keys: the public halves; the private ones stay where they are.
        host_certificates: lines of certificates of them.
        asks_accept: the application wants to be asked about each client.
        asks_terms: the application wants to be asked how each user may log in.
        audited: somebody records what happens.
        methods: the authentication methods, by name.
        authenticators: those that decide there.
        channel_types: what channels may be asked for; `global_requests` and `session_requests` likewise.
        levels: how much each logger says.
        first: the first connection's number.
        cookies: what the connections' cookies are made of; see `cookie`.
    """

    index: int
    workers: int
    options: dict[str, Any] = field(repr=False)
    host_keys: tuple[bytes, ...]
    host_certificates: tuple[bytes, ...]
    asks_accept: bool
    asks_terms: bool
    audited: bool
    methods: tuple[str, ...]
    authenticators: tuple[Authenticator, ...]
    channel_types: tuple[str, ...]
    global_requests: tuple[str, ...]
    session_requests: tuple[str, ...]
    levels: dict[str, int]
    first: int
    cookies: bytes = field(repr=False)

    @classmethod
    def of(cls, config: ServerConfig, index: int, levels: dict[str, int], first: int, cookies: bytes) -> Order:
        """Make one from a server's configuration."""
        return cls(
            index=index,
            workers=config.workers,
            options={name: getattr(config, name) for name in _TRAVELS},
            host_keys=tuple(key.public.blob for key in config.keys),
            host_certificates=tuple(each.line().encode() for each in config.certificates),
            asks_accept=config.accept is not None,
            asks_terms=config.terms_for is not None,
            audited=bool(config.audit),
            methods=tuple(each.method for each in config.authenticators),
            authenticators=tuple(each for each in config.authenticators if each.method in config.decided_elsewhere),
            channel_types=tuple(config.channel_types),
            global_requests=tuple(config.global_requests),
            session_requests=tuple(config.session_requests),
            levels=levels,
            first=first,
            cookies=cookies,
        )


def cookie(cookies: bytes, connection: int) -> bytes:
    """Give what a connection's first KEXINIT shows (RFC 4253 §7.1), and its session identifier so depends on.

    Who has ordered the process knows it as well, and so tells a session from those that were before.
    """
    made = hashes.Hash(hashes.SHA256())  # hashlib would load another libcrypto
    made.update(cookies + connection.to_bytes(8, "big"))
    return made.finalize()[:_COOKIE_BYTES]
