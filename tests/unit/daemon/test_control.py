"""The control socket, as the program gets it from the one that it takes over from."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import cast

import pytest

from dunnart.daemon.config import ServeConfig
from dunnart.daemon.control import open_control
from dunnart.server import Server

NOBODY_ASKS = cast("Server", None)


@pytest.mark.parametrize("what", ["the same", "its file was removed", "another is wanted", "none is wanted"])
async def test_a_socket_that_was_handed_over_is_used_or_closed(what: str, tmp_path: Path) -> None:
    before, wanted = tmp_path / "before", tmp_path / "before"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(before))
    listener.listen()
    if what == "its file was removed":
        before.unlink()
    elif what == "another is wanted":
        wanted = tmp_path / "wanted"
    config = ServeConfig(control_socket="off" if what == "none is wanted" else str(wanted))
    control = open_control(config, NOBODY_ASKS, None, listener)
    assert (listener.fileno() >= 0) == (what == "the same")
    if control is None:
        assert what == "none is wanted"
        return
    assert (control.listener is listener) == (what == "the same")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(wanted))
    await control.close()
    assert not wanted.exists()
