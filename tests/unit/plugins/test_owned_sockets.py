"""Whose the sockets are that are made for a user."""

from __future__ import annotations

import logging
import os
import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from dunnart.plugins import tcpip_forward
from dunnart.plugins.direct_tcpip import DirectTcpip, Options
from dunnart.plugins.os_account import Account
from dunnart.plugins.owned_sockets import owned
from dunnart.server import Address, ChannelOpening, ConnectionFacts
from dunnart.server.forwarding import Tunnel
from dunnart.server.plugins import Context
from dunnart.wire.encoding import text, uint32

UID, GID = 65534, 65533
ANN = Account("ann", UID, GID, "/", "/bin/sh")
ANNS = ConnectionFacts(1, "ann", Address("127.0.0.1", 1), Address("127.0.0.1", 22), grants=(ANN,))
LOG = logging.getLogger("dunnart.plugin.test")
needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root makes sockets for others, on Linux"
)


def owner(sock: socket.socket) -> tuple[int, int]:
    found = os.fstat(sock.fileno())
    return found.st_uid, found.st_gid


async def allows(_forward: object) -> bool:
    return True


@needs_root
async def test_a_forwarded_connection_is_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Firewalls have rules for users, as for who may ask a cloud for its secrets; and identd tells whose it is."""
    client: Any = SimpleNamespace(allows=allows)
    plugin = DirectTcpip(Context("direct-tcpip", Options(), LOG))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        data = text("127.0.0.1") + uint32(listener.getsockname()[1]) + text("127.0.0.1") + uint32(9)
        tunnel = await plugin.open(ChannelOpening(ANNS, "direct-tcpip", data, client))
    assert isinstance(tunnel, Tunnel)
    assert tunnel._sock is not None
    assert owner(tunnel._sock) == (UID, GID)


@needs_root
def test_afterwards_the_server_is_root_again() -> None:
    with owned(ANNS):
        with socket.socket() as sock:
            assert owner(sock) == (UID, GID)
        with pytest.raises(PermissionError):
            os.open("/etc/shadow", os.O_RDONLY)
    with socket.socket() as sock:
        assert owner(sock) == (0, 0)
    os.close(os.open("/etc/shadow", os.O_RDONLY))


@needs_root
def test_who_has_no_account_is_served_all_the_same() -> None:
    with owned(ConnectionFacts(1, "no such user", ANNS.peer, ANNS.local)), socket.socket() as sock:
        assert owner(sock) == (0, 0)


@needs_root
async def test_what_listens_for_a_user_is_the_user_s() -> None:
    plugin = tcpip_forward.TcpipForward(Context("tcpip-forward", tcpip_forward.Options(), LOG))
    request: Any = SimpleNamespace(connection=ANNS)
    (sock,) = plugin._bind(request, [(socket.AF_INET, ("127.0.0.1", 0))], 0)
    with sock:
        assert owner(sock) == (UID, GID)
