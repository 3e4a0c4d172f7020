"""Unix sockets, agents and displays: what arrives, whose they are, what is refused, and that nothing is left."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dunnart.plugins import private_folder, unix_process, unix_sockets
from dunnart.plugins.agent_forwarding import AgentForwarding
from dunnart.plugins.allow_list import AllowList
from dunnart.plugins.allow_list import Options as Rules
from dunnart.plugins.direct_streamlocal import DirectStreamlocal
from dunnart.plugins.direct_streamlocal import Options as Connecting
from dunnart.plugins.os_account import Account
from dunnart.plugins.private_folder import PrivateFolder
from dunnart.plugins.streamlocal_forward import Options as Listening
from dunnart.plugins.streamlocal_forward import StreamlocalForward
from dunnart.plugins.x11_forwarding import Options as Displays
from dunnart.plugins.x11_forwarding import X11Forwarding
from dunnart.protocol.questions import ChannelOpenQuestion
from dunnart.protocol.requests import ExecRequest, UnknownGlobalRequest, UnknownOpen, UnknownRequest
from dunnart.server import Allow, AuthReply
from dunnart.server.plugins import Context
from dunnart.wire.encoding import boolean, string, text, uint32
from tests.runtime.driver import MIB, Channel, Client, descriptors, eventually
from tests.runtime.test_placements import Placed, every_placement, placed

LOG = logging.getLogger("dunnart.plugin.test")
ACCEPTING = {ChannelOpenQuestion: True}
ON_LOOP = ("loop", 1)
EVERYTHING = Rules().rules
needs_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be somebody else")


def other_account() -> Account:
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, "/", "/bin/sh")


class As:
    """Lets in as an account."""

    method = "password"

    def __init__(self, account: Account) -> None:
        self._account = account

    async def authenticate(self, attempt: Any) -> AuthReply:
        return Allow(self._account)


@asynccontextmanager
async def forwarding(
    where: Any = ON_LOOP, rules: tuple[str, ...] = EVERYTHING, *, account: Account | None = None,
    listening: Listening | None = None, seconds: float = 5.0, **options: Any,
) -> AsyncIterator[Placed]:  # fmt: skip
    if account is not None:
        options["authenticators"] = [As(account)]
    listen = StreamlocalForward(Context("streamlocal-forward", listening or Listening(), LOG))
    async with placed(
        where,
        channel_types={
            "direct-streamlocal@openssh.com": DirectStreamlocal(Context("", Connecting(seconds), LOG)),
        },
        global_requests={
            "streamlocal-forward@openssh.com": listen, "cancel-streamlocal-forward@openssh.com": listen,
        },
        session_requests={
            "auth-agent-req@openssh.com": AgentForwarding(Context("", None, LOG)),
            "x11-req": X11Forwarding(Context("", Displays(), LOG)),
        },
        forwarding=[AllowList(Context("", Rules(rules), LOG))],
        **options,
    ) as server:  # fmt: skip
        yield server


@asynccontextmanager
async def echoing(path: Path) -> AsyncIterator[list[tuple[int, int, int]]]:
    """A unix socket that gives back what it reads; gives the peers' process, user and group."""
    peers: list[tuple[int, int, int]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        peers.append(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, str(path)):
        os.chmod(path, 0o777)
        yield peers


async def dial(client: Client, path: Path | bytes, extra: bytes = string(b"") + uint32(0)) -> Channel:
    data = string(os.fsencode(path)) + extra
    number = client.engine.open_channel("direct-streamlocal@openssh.com", data)
    channel = client.channels[number] = Channel(number)
    client.move()
    await client.until(lambda: channel.opened is not None)
    return channel


async def ask(client: Client, name: str, path: Path | bytes) -> bool:
    before = len(client.global_answers)
    request = UnknownGlobalRequest(f"{name}@openssh.com", string(os.fsencode(path)))
    client.engine.request_global(request, want_reply=True)
    client.move()
    await client.until(lambda: len(client.global_answers) > before)
    return client.global_answers[-1]


async def opened(client: Client, before: int) -> Channel:
    """Wait for a channel that the server opens."""
    await client.until(lambda: len(client.channels) > before)
    return client.channels[max(client.channels)]


# Sockets to connect to.


@every_placement
async def test_bytes_go_to_a_socket_and_back(where: Any, tmp_path: Path) -> None:
    async with forwarding(where) as server, echoing(tmp_path / "s"):
        client = await server.login()
        channel = await dial(client, tmp_path / "s")
        data = os.urandom(3 * MIB)
        await client.send_all(channel, data)
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        assert channel.out == data


@pytest.mark.parametrize("path", [b"", b"relative", b"/a\0b", b"\0abstract", b"/" + b"x" * 200, b"/etc/passwd"])
async def test_paths_that_lead_nowhere_are_refused(path: bytes) -> None:
    async with forwarding() as server:
        client = await server.login()
        assert not (await dial(client, path)).opened
        assert not await ask(client, "streamlocal-forward", path)
        assert not await ask(client, "cancel-streamlocal-forward", path)
        assert client.ended is None


async def test_nobody_is_led_to_the_server_s_own_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take the client for the operator."""
    path, link = tmp_path / "control", tmp_path / "link"
    link.symlink_to(path)
    async with forwarding() as server, echoing(path) as peers:
        found = path.stat()
        monkeypatch.setattr(unix_sockets, "own_sockets", {(found.st_dev, found.st_ino)})
        client = await server.login()
        assert not (await dial(client, path)).opened
        assert not (await dial(client, link)).opened
        monkeypatch.setattr(unix_sockets, "own_sockets", set())
        assert (await dial(client, link)).opened
        assert len(peers) == 1


async def test_a_path_that_is_no_text_is_served_and_audited(tmp_path: Path) -> None:
    events: list[Any] = []

    class Sink:
        def record(self, event: Any) -> None:
            events.append(event)

    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    async with forwarding(audit=[Sink()]) as server, echoing(path):
        client = await server.login()
        channel = await dial(client, path)
        await client.send_all(channel, b"four")
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        await eventually(lambda: events[-1].kind == "channel-end")
        assert events[-1].details["detail"] == f"{tmp_path}/\\udcff"
        assert (events[-1].details["bytes_received"], events[-1].details["bytes_sent"]) == (4, 4)
        assert 0 <= events[-1].details["seconds"] < 20


async def test_a_destination_that_accepts_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        async with forwarding(seconds=0.3) as server:
            client = await server.login()
            channels = [await dial(client, tmp_path / "s") for _ in range(4)]
            assert [channel.opened for channel in channels][-1] is False
            assert (await client.run("echo on")).out == b"on\n"


def test_a_destination_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        first = unix_process.connect(path, 0.0)
        with pytest.raises(BlockingIOError):
            unix_process.connect(path, 0.0)

        def accept() -> None:
            with listener.accept()[0]:
                pass

        accepts = threading.Timer(0.1, accept)
        accepts.start()
        unix_process.connect(path, 30.0).close()
        accepts.join()
        first.close()


# Sockets to listen on.


@every_placement
async def test_a_socket_that_the_client_serves(where: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with forwarding(where) as server:
        client = await server.login(answers=ACCEPTING)
        assert await ask(client, "streamlocal-forward", path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        reader, writer = await asyncio.open_unix_connection(str(path))
        channel = await opened(client, 0)
        question = next(event for event in client.events if isinstance(event, ChannelOpenQuestion))
        wanted = string(os.fsencode(path)) + string(b"")
        assert question.request == UnknownOpen("forwarded-streamlocal@openssh.com", wanted)
        writer.write(b"in")
        await client.until(lambda: channel.out == b"in")
        await client.send_all(channel, b"out")
        client.send_eof(channel)
        assert await reader.read() == b"out"
        assert not await ask(client, "streamlocal-forward", path)
        assert await ask(client, "cancel-streamlocal-forward", path)
        assert not path.exists()
        writer.write(b"more")
        writer.close()
        await writer.wait_closed()
        await client.until(lambda: channel.closed)
        assert channel.out == b"inmore"
        assert await ask(client, "streamlocal-forward", path)
        client.close()
        await eventually(lambda: not path.exists())


async def test_what_is_there_is_never_removed_unasked(tmp_path: Path) -> None:
    left, file = tmp_path / "left", tmp_path / "file"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(left))
    file.touch()
    async with forwarding() as server:
        client = await server.login()
        assert not await ask(client, "streamlocal-forward", left)
        assert not await ask(client, "streamlocal-forward", file)
    async with forwarding(listening=Listening("0117", replace=True)) as server:
        client = await server.login()
        assert await ask(client, "streamlocal-forward", left)
        assert not await ask(client, "streamlocal-forward", file)
        assert stat.S_IMODE(left.stat().st_mode) == 0o660
        left.unlink()
        left.write_text("somebody else's")
        assert await ask(client, "cancel-streamlocal-forward", left)
    assert left.exists()


async def test_rules_of_paths(tmp_path: Path) -> None:
    rules = (f"connect-unix {tmp_path}/*", f"listen-unix {tmp_path}/l*")
    async with forwarding(rules=rules) as server, echoing(tmp_path / "s"):
        client = await server.login()
        assert (await dial(client, tmp_path / "s")).opened
        assert not (await dial(client, Path("/run/s"))).opened
        assert await ask(client, "streamlocal-forward", tmp_path / "l")
        assert not await ask(client, "streamlocal-forward", tmp_path / "m")
        assert server.server.counters["refused_forwards"] == 2


@pytest.mark.parametrize("mask", ["", "8", "1777", "-1", "0x1"])
def test_masks_are_checked(mask: str) -> None:
    with pytest.raises(ValueError, match="mask is"):
        Listening(mask)


# With the rights of the user.


@needs_root
@every_placement
async def test_the_peer_sees_the_user_and_not_root(where: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    account = other_account()
    with _open_folder() as folder:
        closed = folder / "closed"
        closed.mkdir(0o700)
        async with forwarding(where, account=account) as server, echoing(folder / "s") as peers, echoing(closed / "s"):
            client = await server.login()
            channel = await dial(client, folder / "s")
            await client.send_all(channel, b"x")
            await client.until(lambda: channel.out == b"x")
            assert [peer[1:] for peer in peers] == [(account.uid, account.gid)]
            assert not (await dial(client, closed / "s")).opened


@needs_root
@every_placement
async def test_the_socket_is_the_user_s_and_goes_with_the_client(where: Any) -> None:
    account = other_account()
    with _open_folder() as folder:
        path, closed = folder / "s", folder / "closed"
        closed.mkdir(0o755)
        async with forwarding(where, account=account) as server:
            client = await server.login(answers=ACCEPTING)
            assert await ask(client, "streamlocal-forward", path)
            found = path.stat()
            assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (account.uid, account.gid, 0o600)
            assert not await ask(client, "streamlocal-forward", closed / "s")
            _, writer = await asyncio.open_unix_connection(str(path))
            channel = await opened(client, 0)
            writer.write(b"x")
            await client.until(lambda: channel.out == b"x")
            assert await ask(client, "cancel-streamlocal-forward", path)
            await eventually(lambda: not path.exists())
            assert await ask(client, "streamlocal-forward", path)
            client.reset()
            await eventually(lambda: not path.exists())
            writer.close()


@pytest.mark.parametrize("gone_first", [True, False])
def test_the_process_of_the_user_removes_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, gone_first: bool
) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(unix_process, "_CONTROL", theirs.detach())
    path = tmp_path / "s"
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(unix_process.main(["listen", str(path), "127", "0"])))
    if gone_first:
        ours.close()
        thread.start()
    else:
        thread.start()
        _, found, _, _ = socket.recv_fds(ours, 4, 1)
        assert path.exists()
        os.close(found[0])
        ours.close()
    thread.join(20)
    assert ended == [0]
    assert not path.exists()


@needs_root
async def test_the_agent_s_socket_and_the_display_s_cookie_are_the_user_s() -> None:
    account = other_account()
    async with forwarding(account=account) as server:
        client = await server.login()
        channel = await client.session()
        assert await client.ask(channel, UnknownRequest("auth-agent-req@openssh.com", b""))
        assert await client.ask(channel, x11())
        client.request(channel, ExecRequest(b'stat -c "%u %a" $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK) $XAUTHORITY '
                                            b"$(dirname $XAUTHORITY)"))  # fmt: skip
        await client.until(lambda: channel.closed)
        assert channel.out.decode().splitlines() == [f"{account.uid} {mode}" for mode in (600, 700, 600, 700)]


@contextmanager
def _open_folder() -> Iterator[Path]:
    """A folder that everybody can get at, which pytest's are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        folder = Path(made)
        folder.chmod(0o777)
        yield folder


@pytest.fixture(autouse=True)
def _private_folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have them made where no other test makes its own."""
    with _open_folder() as parent:
        monkeypatch.setattr(private_folder, "_PARENT", str(parent))
        yield


def test_a_folder_that_its_user_has_exchanged_takes_nothing_else_along(tmp_path: Path) -> None:
    folder = PrivateFolder(None)
    Path(folder.add("agent")).touch()
    folder.give()
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "agent").touch()
    moved = Path(f"{folder.path}-moved")
    os.rename(folder.path, moved)
    os.symlink(victim, folder.path)
    folder.remove()
    assert (victim / "agent").exists()
    assert list(moved.iterdir()) == []
    moved.rmdir()
    os.unlink(folder.path)
    folder.remove()  # once more does no harm


# Agents.


def folders() -> set[str]:
    return {name for name in os.listdir(private_folder._PARENT) if name.startswith("ssh-")}


@every_placement
async def test_an_agent_for_all_sessions_of_a_connection(where: Any) -> None:
    before = folders()
    async with forwarding(where) as server:
        client = await server.login(answers=ACCEPTING)
        paths = set()
        for _ in range(2):
            channel = await client.session()
            # All at once, as clients do: the command must not begin before the socket is there.
            client.request(channel, UnknownRequest("auth-agent-req@openssh.com", b""))
            client.request(channel, ExecRequest(b"echo $SSH_AUTH_SOCK; test -S $SSH_AUTH_SOCK"))
            await client.until(lambda: channel.closed)  # noqa: B023 - waited for here
            assert channel.status == 0
            paths.add(channel.out.decode().strip())
        (path,) = paths
        reader, writer = await asyncio.open_unix_connection(path)
        channel = await opened(client, 2)
        question = next(event for event in client.events if isinstance(event, ChannelOpenQuestion))
        assert question.request == UnknownOpen("auth-agent@openssh.com", b"")
        writer.write(b"keys?")
        await client.until(lambda: channel.out == b"keys?")
        await client.send_all(channel, b"none")
        client.send_eof(channel)
        assert await reader.read() == b"none"
        writer.close()
        client.reset()
        await eventually(lambda: folders() <= before)


async def test_without_leave_there_is_neither_agent_nor_display() -> None:
    before = folders()
    async with forwarding(rules=("connect *:*",)) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, UnknownRequest("auth-agent-req@openssh.com", b""))
        assert not await client.ask(channel, x11())
        assert not await client.ask(channel, UnknownRequest("x@example.org", b""))
        client.request(channel, ExecRequest(b"echo $SSH_AUTH_SOCK$DISPLAY"))
        await client.until(lambda: channel.closed)
        assert channel.out == b"\n"
        assert folders() <= before


async def test_what_runs_already_gets_neither() -> None:
    async with forwarding() as server:
        client = await server.login()
        channel = await client.exec("cat")
        assert not await client.ask(channel, UnknownRequest("auth-agent-req@openssh.com", b""))
        assert not await client.ask(channel, x11())


# Displays.


def x11(
    *, once: bool = False, protocol: str = "MIT-MAGIC-COOKIE-1", cookie: str = "00ff" * 8, screen: int = 0,
    more: bytes = b"",
) -> UnknownRequest:  # fmt: skip
    data = boolean(once) + text(protocol) + text(cookie) + uint32(screen) + more
    return UnknownRequest("x11-req", data)


async def display(client: Client, request: UnknownRequest) -> tuple[Channel, int, str]:
    """Ask for a display in a session that goes on; gives its port and the file with the cookie."""
    channel = await client.session()
    client.request(channel, request)
    client.request(channel, ExecRequest(b"echo $DISPLAY; echo $XAUTHORITY; exec cat"))
    await client.until(lambda: channel.out.count(b"\n") == 2)
    name, authority = channel.out.decode().splitlines()
    host, _, number = name.partition(":")
    assert host == "localhost"
    return channel, 6000 + int(number.partition(".")[0]), authority


@every_placement
async def test_a_display_goes_with_its_session(where: Any) -> None:
    before = folders()
    async with forwarding(where) as server:
        client = await server.login(answers=ACCEPTING)
        session, port, authority = await display(client, x11(screen=3))
        other, other_port, _ = await display(client, x11())
        assert port != other_port
        assert session.out.split()[0].endswith(b".3")
        assert bytes.fromhex("00ff" * 8) in _contents(authority)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        channel = await opened(client, 2)
        question = next(event for event in client.events if isinstance(event, ChannelOpenQuestion))
        peer = writer.get_extra_info("sockname")
        assert question.request == UnknownOpen("x11", text(peer[0]) + uint32(peer[1]))
        writer.write(b"hello")
        await client.until(lambda: channel.out == b"hello")
        client.send_eof(session)
        await client.until(lambda: session.closed)
        await eventually(lambda: _refused(port))
        writer.write(b", still")  # what runs goes on
        await client.until(lambda: channel.out == b"hello, still")
        assert not _refused(other_port)
        client.close_channel(other)
        writer.close()
        await eventually(lambda: _refused(other_port))
        await eventually(lambda: folders() <= before)


def _contents(path: str) -> bytes:
    return Path(path).read_bytes()


def _refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


async def test_a_single_connection() -> None:
    async with forwarding() as server:
        client = await server.login(answers=ACCEPTING)
        _, port, _ = await display(client, x11(once=True))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        channel = await opened(client, 1)
        await eventually(lambda: _refused(port))
        writer.write(b"x")
        await client.until(lambda: channel.out == b"x")
        writer.close()


async def test_a_display_that_is_taken_is_left_alone() -> None:
    async with forwarding() as server:
        client = await server.login()
        _, first, _ = await display(client, x11())
        taken = [socket.create_server(("127.0.0.1", first + 1)), socket.create_server(("::1", first + 2),
                 family=socket.AF_INET6)]  # fmt: skip
        _, second, _ = await display(client, x11())
        assert second == first + 3
        for each in taken:
            each.close()


@every_placement
async def test_a_session_that_is_closed_at_once_leaves_no_display(where: Any) -> None:
    before = folders()
    async with forwarding(where) as server:
        client = await server.login()
        for _ in range(3):
            channel = await client.session()
            client.engine.request(channel.number, x11(), want_reply=True)
            client.engine.close_channel(channel.number)
            client.move()
            await client.until(lambda: channel.closed)  # noqa: B023 - waited for here
        assert (await client.run("echo on")).out == b"on\n"
        await eventually(lambda: folders() <= before)


@pytest.mark.parametrize(
    "request_",
    [x11(protocol=""), x11(protocol="a b"), x11(protocol="x" * 65), x11(cookie=""), x11(cookie="0g"), x11(cookie="0"),
     x11(cookie="00" * 300), x11(cookie="00\n; id"), x11(screen=401), x11(more=b"x"), UnknownRequest("x11-req", b"")],
)  # fmt: skip
async def test_malformed_requests_for_displays_are_refused(request_: UnknownRequest) -> None:
    async with forwarding() as server:
        client = await server.login()
        assert not await client.ask(await client.session(), request_)


async def test_nothing_is_left_of_many_that_vanish(tmp_path: Path) -> None:
    folders_before = folders()
    async with forwarding() as server, echoing(tmp_path / "s"):

        async def some(count: int) -> None:
            for number in range(count):
                client = await server.login(answers=ACCEPTING)
                await display(client, x11())
                channel = await client.session()
                assert await client.ask(channel, UnknownRequest("auth-agent-req@openssh.com", b""))
                assert await ask(client, "streamlocal-forward", tmp_path / f"l{number}")
                await dial(client, tmp_path / "s")
                client.reset()
            await eventually(lambda: server.server.connections == 0)
            server.clients.clear()

        await some(2)
        await eventually(lambda: folders() <= folders_before)
        before = descriptors()
        await some(10)
        await eventually(lambda: folders() <= folders_before)
        await eventually(lambda: descriptors() <= before + 1)
        await eventually(lambda: os.listdir(tmp_path) == ["s"])
