"""What a daemon does while it runs: the configuration is read again, and nobody needs it any more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dunnart.daemon import running
from dunnart.daemon.config import ServeConfig
from dunnart.daemon.control import open_control
from dunnart.daemon.handed import Handed
from dunnart.daemon.preparing import prepare
from dunnart.daemon.running import Daemon
from dunnart.daemon.serve import Start
from dunnart.daemon.systemd import Notifier
from dunnart.errors import ConfigError
from dunnart.runtime.listeners import listen_address
from dunnart.server import Limits


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServeConfig:
    monkeypatch.setattr(running, "start_log", lambda _: None)
    return ServeConfig(
        listen=(listen_address("127.0.0.1:0"),), state_folder=str(tmp_path), workers=1, password="one-time",
        permit_root_login="yes", control_socket=str(tmp_path / "control"),
    )  # fmt: skip


@asynccontextmanager
async def serving(config: ServeConfig, again: ServeConfig) -> AsyncIterator[Daemon]:
    """A daemon that listens; what it finds when it reads its configuration again."""
    daemon = Daemon(prepare(config), Start(Handed(), lambda: again, Notifier()))
    await daemon._server.start()
    daemon._control = open_control(config, daemon._server, daemon)
    try:
        yield daemon
    finally:
        await daemon._end()


def reached(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) == 0


async def test_nothing_changes_if_another_server_has_the_control_socket(config: ServeConfig, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other"))
        other.listen()
        again = replace(config, control_socket=str(tmp_path / "other"), limits=Limits(sessions=3))
        async with serving(config, again) as daemon:
            with pytest.raises(ConfigError, match="another server has it"):
                await daemon.reload()
            assert daemon._server.config.limits == config.limits
            assert daemon._prepared.config is config
            assert reached(config.control_socket)


async def test_the_control_socket_stays_if_the_rest_cannot_be_served(config: ServeConfig, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = listen_address(f"127.0.0.1:{other.getsockname()[1]}")
        async with serving(config, replace(config, control_socket=str(moved), listen=(taken,))) as daemon:
            with pytest.raises(ConfigError):
                await daemon.reload()
            assert reached(config.control_socket)
            assert not moved.exists()


async def test_the_control_socket_moves(config: ServeConfig, tmp_path: Path) -> None:
    left, moved = tmp_path / "control", tmp_path / "moved"
    async with serving(config, replace(config, control_socket=str(moved))) as daemon:
        await daemon.reload()
        assert reached(str(moved))
        await asyncio.gather(*daemon._tasks)
        assert not left.exists()
    assert not moved.exists()


async def test_the_time_after_which_nobody_needs_it_is_the_newest(config: ServeConfig) -> None:
    async with serving(replace(config, exit_on_idle=3600), replace(config, exit_on_idle=1)) as daemon:
        idle = asyncio.create_task(daemon._idle())
        await asyncio.sleep(0)
        await daemon.reload()
        async with asyncio.timeout(30):
            await idle
