"""The server's side of SOCKS 4, 4a and 5 (RFC 1928), as far as `ssh -D` needs it; no I/O.

CONNECT is all that it does, and nobody is asked who they are.

                version 4 ──► request ───────────────────► request is there ──► granted or refused
first byte ──►
                version 5 ──► methods ──► answer, request ──► the same
"""

from __future__ import annotations

import socket

from dunnart.errors import DecodeError

_LONGEST = 1024
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NO_AUTHENTICATION = 0


class SocksServer:
    """One client's wish.

    Attributes:
        wanted: the host and port that it wants to be connected to, once they are known.
        rest: what it has sent behind its request.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._version = 0
        self._greeted = False
        self.wanted: tuple[str, int] | None = None
        self.rest = b""

    def receive(self, data: bytes) -> bytes:
        """Take received bytes; gives what is to be sent back.

        Raises:
            DecodeError: it is no SOCKS, or something else than a connection is wanted.
        """
        self._data += data
        if self.wanted is not None:
            self.rest += bytes(self._data)
            self._data.clear()
            return b""
        if self._data:
            self._version = self._data[0]
        if self._version == 5:
            return self._receive_5()
        if self._version == 4:
            self._receive_4()
            return b""
        raise DecodeError(f"no SOCKS version 4 or 5, but {self._version}" if self._data else "nothing was said")

    def granted(self) -> bytes:
        """What to send when the connection is there."""
        return self._reply(5, 0) if self._version == 5 else self._reply(4, 0x5A)

    def refused(self) -> bytes:
        """What to send when there will be none."""
        return self._reply(5, 5) if self._version == 5 else self._reply(4, 0x5B)

    @staticmethod
    def _reply(version: int, code: int) -> bytes:
        return bytes((5, code, 0, _IPV4)) + bytes(6) if version == 5 else bytes((0, code)) + bytes(6)

    def _receive_4(self) -> None:
        """Version, command, port, address, user and NUL; an address 0.0.0.x says that a name and NUL follow (4a)."""
        found = self._data
        user_end = found.find(0, 8)
        if len(found) < 9 or user_end < 0:
            self._bound()
            return
        self._check_command(found[1])
        port, address = int.from_bytes(found[2:4], "big"), bytes(found[4:8])
        end = user_end + 1
        host = socket.inet_ntoa(address)
        if address[:3] == bytes(3) and address[3]:
            name_end = found.find(0, end)
            if name_end < 0:
                self._bound()
                return
            host = _name(bytes(found[end:name_end]))
            end = name_end + 1
        self._done(host, port, end)

    def _receive_5(self) -> bytes:
        found = self._data
        answer = b""
        if not self._greeted:
            if len(found) < 2 or len(found) < 2 + found[1]:
                return b""
            if _NO_AUTHENTICATION not in found[2 : 2 + found[1]]:
                raise DecodeError("the client wants to say who it is, which nobody here asks")
            del found[: 2 + found[1]]
            self._greeted = True
            answer = bytes((5, _NO_AUTHENTICATION))
        if len(found) < 5:
            return answer
        self._check_command(found[1])
        kind = found[3]
        start = 5 if kind == _NAME else 4
        size = {_IPV4: 4, _IPV6: 16, _NAME: found[4]}.get(kind)
        if size is None:
            raise DecodeError(f"address type {kind} is not known")
        end = start + size
        if len(found) < end + 2:
            return answer
        address = bytes(found[start:end])
        family = socket.AF_INET6 if kind == _IPV6 else socket.AF_INET
        host = _name(address) if kind == _NAME else socket.inet_ntop(family, address)
        self._done(host, int.from_bytes(found[end : end + 2], "big"), end + 2)
        return answer

    def _check_command(self, command: int) -> None:
        if command != _CONNECT:
            raise DecodeError(f"command {command} is not served, only CONNECT")

    def _bound(self) -> None:
        if len(self._data) > _LONGEST:
            raise DecodeError("the request is too long")

    def _done(self, host: str, port: int, end: int) -> None:
        self.wanted = host, port
        self.rest = bytes(self._data[end:])
        self._data.clear()


def _name(data: bytes) -> str:
    name = data.decode("utf-8", "replace")
    if not name.isprintable() or not name or " " in name:
        raise DecodeError("no host name")
    return name
