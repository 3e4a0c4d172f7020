"""The way to a host: which hosts it leads through."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from dunnart import client
from dunnart.tools.ssh.reading import hop_options, read_options
from dunnart.tools.ssh.route import connect
from dunnart.tools.transfer.destinations import login
from dunnart.tools.transfer.foreground import Foreground


@pytest.mark.parametrize(
    ("given", "host", "way"),
    [
        ([("ProxyJump", "h:1")], "ssh://h:2", [("h", 1), ("h", 2)]),  # another port is another server
        ([("ProxyJump", "h:1,h:2")], "ssh://h:3", [("h", 1), ("h", 2), ("h", 3)]),
        ([("ProxyJump", "a@h")], "b@h", [("h", 22), ("h", 22)]),
        ([], "bastion", [("bastion", 2222)]),  # which `Host *` sends through itself
        ([], "inner", [("bastion", 2222), ("inner", 22)]),
    ],
)
def test_the_hosts_on_the_way(
    given: list[tuple[str, str]], host: str, way: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text("Host bastion\n Port 2222\nHost bastion inner\n ProxyJump bastion\n")
    gone: list[tuple[str, int]] = []

    async def connected(**arguments: Any) -> object:
        gone.append((arguments["host"], arguments["port"]))
        return object()

    monkeypatch.setattr(client, "connect", connected)
    options = read_options(login(host), given, str(config))
    asyncio.run(connect(options, cast("Foreground", None), hop_options(given, str(config))))
    assert gone == way
