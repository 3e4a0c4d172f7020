"""HTTP for plug-ins: one request, bounded in time and size, to servers that prove who they are."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from dunnart.errors import ConfigError
from dunnart.plugins.looking_up import LOOPBACK, have_tls

if TYPE_CHECKING:
    import ssl

_LARGEST_BYTES = 256 * 1024


class Web:
    """Asks web servers. Redirects are not followed.

    Args:
        seconds: how long an answer may take, connecting included.
        ca_file: certificates that the servers' are checked with; "": those that the system trusts.
        largest_bytes: a longer answer fails.
        plain: only http is asked for, on this machine; what TLS needs is not loaded.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(
        self, seconds: float, ca_file: str = "", *, largest_bytes: int = _LARGEST_BYTES, plain: bool = False
    ) -> None:
        self._seconds = seconds
        self._largest_bytes = largest_bytes
        self._tls = None if plain else _context(ca_file)

    def fetch(
        self, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Get a page, or post a form; blocks.

        Returns:
            The status, and what the page holds.

        Raises:
            OSError: no answer came in time, or what came is none, not all of one, or too long.
        """
        if not trusted(url):
            raise OSError(f"{url} is no https address")
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        sock = socket.create_connection((host, port), self._seconds)
        # A server that sends a byte now and then would never meet the timeout of a single read.
        copy = sock.dup()
        late, too_late = threading.Event(), TimeoutError(f"{host} has not answered within {self._seconds:g} s")
        bound = threading.Timer(self._seconds, _cut, (copy, late))
        bound.daemon = True
        bound.start()
        try:
            if secure:
                assert self._tls is not None
                sock = self._tls.wrap_socket(sock, server_hostname=host)
            path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
            found = self._talk(http.client.HTTPConnection(host, port), sock, path, form, headers or {})
        except http.client.HTTPException as error:
            raise too_late if late.is_set() else OSError(f"{host} does not speak HTTP: {error!r}") from error
        finally:
            bound.cancel()
            copy.close()
            sock.close()
        if late.is_set():  # an answer may have no other end than the connection's
            raise too_late
        return found

    def _talk(
        self, connection: http.client.HTTPConnection, sock: socket.socket, path: str, form: Mapping[str, str] | None,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes]:  # fmt: skip
        connection.sock = sock
        wanted = {"Connection": "close", **headers}
        if form is None:
            connection.request("GET", path, headers=wanted)
        else:
            wanted["Content-Type"] = "application/x-www-form-urlencoded"
            connection.request("POST", path, urlencode(form), wanted)
        with connection.getresponse() as answer:
            said = answer.read(self._largest_bytes + 1)
        if len(said) > self._largest_bytes:
            raise OSError(f"the answer of {connection.host} is longer than {self._largest_bytes} bytes")
        if answer.length:
            raise OSError(f"the answer of {connection.host} ends {answer.length} bytes too early")
        return answer.status, said

    def ask(
        self, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """The same for a page that is a JSON object."""
        status, said = self.fetch(url, form, {"Accept": "application/json", **(headers or {})})
        host = urlsplit(url).hostname
        try:
            found = json.loads(said)
        except (ValueError, RecursionError) as error:
            raise OSError(f"{host} answers {status}, and no JSON") from error
        if not isinstance(found, dict):
            raise OSError(f"{host} answers {status}, and no JSON object")
        return status, found


def trusted(url: str) -> bool:
    """Whether nobody on the way can change what an address answers: https, or http on this machine."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and (
            parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        )  # fmt: skip
    except ValueError:
        return False


def _context(ca_file: str) -> ssl.SSLContext:
    have_tls()
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"{ca_file}: {error.strerror or error}", key="ca_file") from error


def _cut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):  # it has ended meanwhile
        sock.shutdown(socket.SHUT_RDWR)
