"""What a server is made from, checked when it is made."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any

from dunnart.ecos.logins import authenticators
from dunnart.errors import ConfigError, KeyFormatError
from dunnart.keys import PrivateKey, PublicKey
from dunnart.records import dataclass
from dunnart.server import Address, Limits, ServerConfig

if TYPE_CHECKING:
    from dunnart.ecos.sessions import Handle

_KIB = 1024
_LEAST_WINDOW_BYTES = 64 * _KIB
_WINDOW_PACKETS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class DropbearData:
    """What a server is made from. Everything is checked when it is made.

    Callbacks that are left out switch off what they are for. An exception in one, or no answer within
    `callback_seconds`, denies; only `True` allows. Addresses are (host, port) pairs.

    Attributes:
        rsa_private_host_key: an RSA key, as its file's content (OpenSSH's format or PEM).
        dss_private_host_key: a DSS key likewise; only with `algorithms="legacy"`, because DSS is broken.
        private_host_keys: keys of any kind: `PrivateKey`s, files' contents, or files' names. At least one of the three.
        accept_connection: `(address)`: may this client connect? Asked before a byte is exchanged.
        connected: `(socket, handle)`: a session begins. It has a thread of its own, in which it may as well serve the
            session. If it raises, the session ends with status 1. None: the application accepts on `local_port`.
        get_public_keys: `(algorithm, user, address)` gives the keys that may log in, or their lines as in an
            `id_ed25519.pub`; the first `max_public_keys` count. Never two calls at once.
        free_public_keys: `(keys)` gets back what `get_public_keys` gave, before that is called again.
        authenticate_password: `(user, address, password)`: is it right?
        logger: `(message)` gets the log, a line a call. All servers of the process share it. None: nothing is printed.
        address: where to listen; "*" is every address.
        port: the network port; 0 lets the system choose.
        support_stderr: whether `Handle.get_stderr` is there.
        max_packet_bytes: the largest channel packet that clients may send, at least 1024; 32768 for throughput.
        max_public_keys: how many keys of one `get_public_keys` count.
        local_port: make the local sockets TCP connections to this loopback port: with `connected` a free one, without
            it the one on which the application accepts. 0: pairs of sockets, which need none.
        stderr_port: the same for `get_stderr`; the port must be free.
        thread_priority: added to the nice value of the server's and the callbacks' threads (Linux), 0 to 19.
        stack_size: bytes of the stacks of the server's thread and of `connected`'s, 0 for the platform's or 32768 up.
        accept_delay_seconds: rest so long after each accepted connection.
        retry_delay_seconds: rest so long when descriptors ran out, and then accept again.
        callback_seconds: a callback that takes longer denies.
        algorithms: what is offered: "default", "strict", "fips" or "legacy".
        options: not given, but made of all these: the arguments of the `Server`.

    Raises:
        ConfigError: it cannot work, or would let everybody in; names the argument.
    """

    rsa_private_host_key: bytes = field(default=b"", repr=False)
    dss_private_host_key: bytes = field(default=b"", repr=False)
    private_host_keys: Sequence[PrivateKey | bytes | str | os.PathLike[str]] = field(default=(), repr=False)
    accept_connection: Callable[[Address], bool] | None = None
    connected: Callable[[socket.socket, Handle], object] | None = None
    get_public_keys: Callable[[str, str, Address], Sequence[PublicKey | str]] | None = None
    free_public_keys: Callable[[Sequence[PublicKey | str]], object] | None = None
    authenticate_password: Callable[[str, Address, str], bool] | None = None
    logger: Callable[[str], object] | None = None
    address: str = "*"
    port: int = 22
    support_stderr: bool = False
    max_packet_bytes: int = _KIB
    max_public_keys: int = 8
    local_port: int = 0
    stderr_port: int = 0
    thread_priority: int = 0
    stack_size: int = 0
    accept_delay_seconds: float = 0.0
    retry_delay_seconds: float = 0.1
    callback_seconds: float = 10.0
    algorithms: str = "default"
    options: Mapping[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.init:
                _check(each.name, getattr(self, each.name))
        if self.connected is None and not self.local_port:
            raise ConfigError("needed, unless the application accepts sessions on a local_port", key="connected")
        if self.get_public_keys is None and self.authenticate_password is None:
            raise ConfigError(
                "nobody could log in: give this callback, or get_public_keys, or both", key="authenticate_password"
            )
        if self.free_public_keys is not None and self.get_public_keys is None:
            raise ConfigError("has no get_public_keys to follow", key="free_public_keys")
        if self.stderr_port and not self.support_stderr:
            raise ConfigError("needs support_stderr", key="stderr_port")
        if self.dss_private_host_key and self.algorithms != "legacy":
            raise ConfigError('DSS is broken, and used only with algorithms="legacy"', key="dss_private_host_key")
        given = self._arguments()
        try:
            checked = ServerConfig(thread_nice=self.thread_priority, thread_stack_bytes=self.stack_size, **given)
        except ConfigError as error:
            key = error.key or ""
            raise ConfigError(str(error).removeprefix(f"{key}: "), key=_OUR_NAMES.get(key, key)) from error
        object.__setattr__(self, "options", given | {"host_keys": checked.keys})  # which are read once

    def _arguments(self) -> dict[str, Any]:
        host = f"[{self.address}]" if ":" in self.address else self.address
        size = self.max_packet_bytes
        return {
            "host_keys": [*self._keys_by_kind(), *self.private_host_keys],
            "authenticators": authenticators(self),
            "listen": f"{host}:{self.port}",
            "accept": self.accept_connection,
            "limits": Limits(
                sessions=1,  # at a time: so what is accepted bounds what is used
                channel_packet_bytes=size,
                packet_bytes=max(Limits().packet_bytes_before_login, size + _KIB),
                window_bytes=max(_LEAST_WINDOW_BYTES, _WINDOW_PACKETS * size),
            ),
            "algorithms": self.algorithms,
            "callback_seconds": self.callback_seconds,
            "accept_delay_seconds": self.accept_delay_seconds,
            "retry_seconds": self.retry_delay_seconds,
            "placement": "loop",
        }

    def _keys_by_kind(self) -> Iterator[PrivateKey]:
        for name, kind in (("rsa_private_host_key", "ssh-rsa"), ("dss_private_host_key", "ssh-dss")):
            if data := getattr(self, name):
                try:
                    key = PrivateKey.load(data)
                except KeyFormatError as error:
                    raise ConfigError(str(error), key=name) from error
                if key.public.key_type != kind:
                    raise ConfigError(f"is a key of another kind: {key.public.key_type}", key=name)
                yield key


_OUR_NAMES = {
    "host_keys": "private_host_keys", "listen": "address", "accept": "accept_connection",
    "retry_seconds": "retry_delay_seconds", "thread_nice": "thread_priority", "thread_stack_bytes": "stack_size",
}  # fmt: skip
_RANGES = {
    "port": (0, 65535), "local_port": (0, 65535), "stderr_port": (0, 65535), "max_packet_bytes": (_KIB, 255 * _KIB),
    "max_public_keys": (1, 1 << 16), "thread_priority": (0, 19),
}  # fmt: skip
_CALLBACKS = ("connected", "get_public_keys", "free_public_keys", "authenticate_password", "logger")


def _check(name: str, value: Any) -> None:  # noqa: ANN401 - it is what is checked
    """Check what `ServerConfig` does not."""
    least, most = _RANGES.get(name, (0, 0))
    if name in _CALLBACKS and not (value is None or callable(value)):
        raise ConfigError(f"{value!r} is no function", key=name)
    if most and (isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most):
        raise ConfigError(f"{value!r} is no whole number of {least} to {most}", key=name)
    if name == "support_stderr" and not isinstance(value, bool):
        raise ConfigError(f"{value!r} is neither True nor False", key=name)
    if name in ("address", "algorithms") and not isinstance(value, str):
        raise ConfigError(f"{value!r} is no text", key=name)
    # A value that may be a key is not shown.
    if name.endswith("_private_host_key") and not isinstance(value, bytes):
        raise ConfigError("is no bytes", key=name)
    if name == "private_host_keys" and (isinstance(value, str | bytes) or not isinstance(value, Sequence)):
        raise ConfigError("is no sequence: write [key]", key=name)
