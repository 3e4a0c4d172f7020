"""The key source `http`: lines of authorized_keys from a web server, as https://github.com/NAME.keys gives them."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from dunnart.errors import ConfigError
from dunnart.plugins.looking_up import LOOPBACK, LookingUp, have_tls
from dunnart.server.plugins import Context, plugin

_NONE = (404, 410)
_READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class Options:
    """Where keys are asked for.

    Attributes:
        url: the page with a user's lines; %u is the user's name. https, or http to this machine. Redirects are not
            followed; a page that does not exist (404, 410) means no keys.
        headers: sent with the request, as {"Authorization": "Bearer …"}.
        ca_file: certificates that the server's is checked with; empty: those that the system trusts.
        seconds: how long an answer may take.
        cache_seconds: how long an answer counts; so long a key that was withdrawn still lets in.
        largest_bytes: a longer answer fails.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    ca_file: str = ""
    seconds: float = 5.0
    cache_seconds: float = 60.0
    largest_bytes: int = 256 * 1024

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"url is {self.url!r}, which is no https://HOST/…")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("url must be https: who can change the answer can log in")
        if "%u" not in self.url.partition("://")[2].partition("/")[2]:
            raise ValueError("url holds no %u behind the host: it would give everybody's keys to everybody")
        if self.seconds <= 0 or self.cache_seconds < 0 or self.largest_bytes <= 0:
            raise ValueError("seconds and largest_bytes must be more than 0, cache_seconds not less")


@plugin(Options)
class HttpKeys:
    """Knows the keys that a web server has for a user."""

    def __init__(self, context: Context[Options]) -> None:
        self._options = options = context.options
        self._parts = urlsplit(options.url)
        self._tls = None
        if self._parts.scheme == "https":
            have_tls()
            import ssl

            try:
                self._tls = ssl.create_default_context(cafile=options.ca_file or None)
            except OSError as error:
                raise ConfigError(f"{options.ca_file}: {error.strerror or error}", key="ca_file") from error
        self._looking_up = LookingUp(self._fetch, options.seconds, options.cache_seconds)

    async def keys(self, user: str, address: str) -> Sequence[str]:
        """Ask the server, or remember."""
        return await self._looking_up.keys(user, address)

    def _fetch(self, user: str) -> Sequence[str]:
        host, secure = self._parts.hostname or "", self._tls is not None
        port = self._parts.port or (443 if secure else 80)
        sock: socket.socket = socket.create_connection((host, port), self._options.seconds)
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        # A server that sends a byte now and then would never meet the timeout of a single read.
        bound = threading.Timer(self._options.seconds, _cut, (sock,))
        bound.daemon = True
        bound.start()
        try:
            if self._tls is not None:
                sock.do_handshake()  # type: ignore[attr-defined] # a TLS socket, but the module may not be loaded
            return self._ask(sock, host, port, user)
        finally:
            bound.cancel()
            sock.close()

    def _ask(self, sock: socket.socket, host: str, port: int, user: str) -> Sequence[str]:
        connection = http.client.HTTPConnection(host, port)
        connection.sock = sock
        path = self._parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        connection.request("GET", path.replace("%u", quote(user, safe="")), headers={**self._options.headers})
        answer = connection.getresponse()
        if answer.status in _NONE:
            return ()
        if answer.status != http.client.OK:
            raise OSError(f"the server answers {answer.status} {answer.reason}")
        said = answer.read(self._options.largest_bytes + 1)
        if len(said) > self._options.largest_bytes:
            raise OSError(f"the answer is longer than {self._options.largest_bytes} bytes")
        return said.decode(errors="surrogateescape").split("\n")


def _cut(sock: socket.socket) -> None:
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return
