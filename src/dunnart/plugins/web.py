"""JSON over HTTP for plug-ins: one request, bounded in time and size, to servers that prove who they are."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from dunnart.errors import ConfigError
from dunnart.plugins.looking_up import LOOPBACK, have_tls

_LARGEST_BYTES = 256 * 1024


class Web:
    """Asks web servers. Redirects are not followed.

    Args:
        seconds: how long an answer may take, connecting included.
        ca_file: certificates that the servers' are checked with; "": those that the system trusts.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, seconds: float, ca_file: str = "") -> None:
        have_tls()
        import ssl

        self._seconds = seconds
        try:
            self._tls = ssl.create_default_context(cafile=ca_file or None)
        except OSError as error:
            raise ConfigError(f"{ca_file}: {error.strerror or error}", key="ca_file") from error

    def ask(
        self, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Get a page, or post a form; blocks.

        Returns:
            The status, and the JSON object.

        Raises:
            OSError: no answer came in time, or what came is none.
        """
        if not trusted(url):
            raise OSError(f"{url} is no https address")
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        sock = socket.create_connection((host, port), self._seconds)
        # A server that sends a byte now and then would never meet the timeout of a single read.
        copy = sock.dup()
        bound = threading.Timer(self._seconds, _cut, (copy,))
        bound.daemon = True
        bound.start()
        try:
            if secure:
                sock = self._tls.wrap_socket(sock, server_hostname=host)
            return _talk(sock, host, port, parts._replace(scheme="", netloc="", fragment="").geturl() or "/", form,
                         headers or {})  # fmt: skip
        except http.client.HTTPException as error:
            raise OSError(f"{host} does not speak HTTP: {error!r}") from error
        finally:
            bound.cancel()
            copy.close()
            sock.close()


def trusted(url: str) -> bool:
    """Whether nobody on the way can change what an address answers: https, or http on this machine."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and (
            parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        )  # fmt: skip
    except ValueError:
        return False


def _talk(
    sock: socket.socket, host: str, port: int, path: str, form: Mapping[str, str] | None, headers: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(host, port)
    connection.sock = sock
    wanted = {"Accept": "application/json", "Connection": "close", **headers}
    if form is None:
        connection.request("GET", path, headers=wanted)
    else:
        wanted["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request("POST", path, urlencode(form), wanted)
    with connection.getresponse() as answer:
        said = answer.read(_LARGEST_BYTES + 1)
    if len(said) > _LARGEST_BYTES:
        raise OSError(f"the answer of {host} is longer than {_LARGEST_BYTES} bytes")
    try:
        found = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise OSError(f"{host} answers {answer.status}, and no JSON") from error
    if not isinstance(found, dict):
        raise OSError(f"{host} answers {answer.status}, and no JSON object")
    return answer.status, found


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        sock.shutdown(socket.SHUT_RDWR)
