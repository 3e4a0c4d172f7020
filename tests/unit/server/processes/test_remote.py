"""What a protocol process decides by itself disturbs nobody else there."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable

import pytest

from dunnart.protocol.questions import Allow, AuthReply, PasswordCredential
from dunnart.server.authentication import Attempt
from dunnart.server.processes.link import Link
from dunnart.server.processes.remote import RemoteHost


async def decided(work: Callable[[], Awaitable[AuthReply]]) -> AuthReply:
    """Ask an authenticator that has travelled there."""

    class Travelling:
        method = "password"
        travels = True

        async def authenticate(self, _: Attempt) -> AuthReply:
            return await work()

    ours, theirs = socket.socketpair()
    link = Link(ours, asyncio.get_running_loop(), lambda *_: None, lambda: None)
    try:
        host = RemoteHost(link, (Travelling(),), callback_seconds=0.05)
        return await host.authenticate(Attempt("ann", PasswordCredential("x"), "192.0.2.1"))
    finally:
        link.close()
        theirs.close()


async def test_it_decides() -> None:
    async def allow() -> AuthReply:
        return Allow()

    assert await decided(allow) == Allow()


async def test_it_has_so_much_time_as_any_other() -> None:
    async def hang() -> AuthReply:
        return await asyncio.Future()

    with pytest.raises(TimeoutError):
        await decided(hang)


async def test_its_exit_is_not_the_process_s() -> None:
    async def leave() -> AuthReply:
        sys.exit("from a plug-in")

    with pytest.raises(RuntimeError, match="from a plug-in"):
        await decided(leave)
