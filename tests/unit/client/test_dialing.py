"""Connected sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest

from dunnart.client.dialing import dial_unix
from dunnart.errors import ConnectionClosed


def test_why_a_unix_socket_cannot_be_reached(tmp_path: Path) -> None:
    def none_left(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def work() -> None:
        path = str(tmp_path / "nobody")
        with pytest.raises(ConnectionClosed, match="nobody cannot be reached: No such file or directory"):
            await dial_unix(path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "socket", none_left)
            with pytest.raises(ConnectionClosed, match="nobody cannot be reached: Too many open files"):
                await dial_unix(path)

    asyncio.run(work())
