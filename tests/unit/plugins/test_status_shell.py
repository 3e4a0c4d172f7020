"""The status shell: its commands, what it shows, and who may do what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from dunnart.plugins import status_text
from dunnart.plugins.status import Options, StatusShell, status_shell
from dunnart.plugins.status_commands import CommandError, Console, split
from dunnart.plugins.status_text import Look, Rate
from dunnart.protocol.requests import PtyRequest, WindowChange
from dunnart.runtime.admission import Admission, Network, StartupLimit
from dunnart.server.plugins import Context
from dunnart.server.status import ChannelStatus, ConnectionStatus, PoolStatus, ProcessStatus, ServerStatus
from tests.runtime.driver import USER, Running
from tests.unit.line_editor.emulator import Emulator
from tests.unit.server.api import Api, begin, ended, every_placement, serving

XTERM = PtyRequest("xterm", 80, 24, 0, 0, b"")

CHANNEL = ChannelStatus(0, "shell", "", "xterm 80x24", 1000.0, 10, 2000, "process 77")
CONNECTION = ConnectionStatus(
    id=7, logged_in=True, user="ann", peer="192.0.2.1:50022", local="192.0.2.9:22", method="publickey",
    key="ssh-ed25519 SHA256:abc", since=1000.0, idle_seconds=61.0, client="SSH-2.0-X", kex="curve25519-sha256",
    host_key="ssh-ed25519", cipher_to_server="aes256-gcm@openssh.com", cipher_to_client="aes256-gcm@openssh.com",
    mac_to_server="", mac_to_client="", compression_to_server="none", compression_to_client="zlib@openssh.com",
    bytes_received=2048, bytes_sent=5 << 20, rekeys=2, channels=(CHANNEL,),
)  # fmt: skip
STATUS = ServerStatus(
    started=0.0, uptime_seconds=90_061.0, placement="thread", workers=1, draining=False, connections=2, logged_in=1,
    sessions=1, channels=1, programs=1, logins=5, failed_logins=3, bytes_received=10_000, bytes_sent=20_000, rekeys=2,
    memory_bytes=30 << 20, cpu_seconds=1.5, threads=3, application=PoolStatus(64, 2, 1, 64, 0, 0),
    processes=(ProcessStatus(1, "server", 30 << 20, 1.5, 3),), algorithms={"kex": {"curve25519-sha256": 2}},
    counters={"logins": 5},
)  # fmt: skip


# Text.


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (1 << 60, "1024.0 PiB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert status_text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1:00"),
        (3599, "59:59"),
        (3661, "1:01:01"),
        (90061, "1 d 01:01:01"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert status_text.duration(seconds) == shown


def test_a_table_lines_up_whatever_stands_in_it() -> None:
    lines = status_text.table(("ID", "USER", "WHAT"), [("1", "日本", "a"), ("12", "bob", "b" * 50)], 20)
    assert lines == ["ID  USER  WHAT", " 1  日本  a", "12  bob   " + "b" * 10]


@pytest.mark.parametrize("columns", [1, 5, 10, 11, 80])
def test_lines_fit(columns: int) -> None:
    assert status_text.fit("日本語 text", columns) == {1: "", 5: "日本", 10: "日本語 tex"}.get(columns, "日本語 text")


def test_status() -> None:
    lines = status_text.status(STATUS, "1.2")
    assert lines[0] == "server       dunnart 1.2, up 1 d 01:01:01"
    assert "connections  2, 1 logged in" in lines
    assert "kex          curve25519-sha256 2" in lines
    assert not any("draining" in line for line in lines)
    assert "draining" in status_text.status(replace(STATUS, draining=True), "1.2")[0]
    two = replace(STATUS, workers=2, processes=(*STATUS.processes, ProcessStatus(2, "protocol 0", 1 << 20, 0.5, 1)))
    assert "protocol     in 2 processes" in status_text.status(two, "1.2")
    assert "             2 protocol 0: 1.0 MiB, 0.5 s, 1 threads" in status_text.status(two, "1.2")
    stuck = replace(two, processes=(*STATUS.processes, ProcessStatus(2, "protocol 0", 0, 0.0, 0, answers=False)))
    assert "             2 protocol 0: does not answer" in status_text.status(stuck, "1.2")
    assert max(map(len, status_text.status(two, "1.2", 30))) == 30


def test_sessions() -> None:
    waiting = replace(CONNECTION, id=12, logged_in=False, user="", channels=())
    idle = replace(CONNECTION, id=13, channels=())
    lines = status_text.sessions([CONNECTION, waiting, idle], now=1010.0)
    assert lines == [
        "ID  USER  FROM             SINCE  IDLE       IN      OUT  WHAT",
        " 7  ann   192.0.2.1:50022   10 s  1:01  2.0 KiB  5.0 MiB  shell (xterm 80x24)",
        "12  -     192.0.2.1:50022   10 s  1:01  2.0 KiB  5.0 MiB  logs in",
        "13  ann   192.0.2.1:50022   10 s  1:01  2.0 KiB  5.0 MiB  -",
    ]
    assert status_text.sessions([], 0) == ["there are no connections"]


def test_session() -> None:
    lines = status_text.session(CONNECTION, Rate(100, 2048), {0: Rate(10, 0)}, now=1010.0)
    assert "key          ssh-ed25519 SHA256:abc" in lines
    assert "mac          -" in lines
    assert "compression  none in, zlib@openssh.com out" in lines
    assert "now          100 B/s in, 2.0 KiB/s out" in lines
    assert lines[-2:] == [
        "NR  SINCE    IN      OUT    IN/s  OUT/s  SERVED BY   WHAT",
        " 0   10 s  10 B  2.0 KiB  10 B/s  0 B/s  process 77  shell (xterm 80x24)",
    ]
    assert "" not in status_text.session(replace(CONNECTION, channels=()), Rate(), {}, now=1010.0)


def test_top_shows_the_busiest_and_what_fits() -> None:
    def seen(at: float, step: int) -> Look:
        connections = tuple(
            replace(CONNECTION, id=number, user=f"user{number}", bytes_sent=number * step) for number in range(1, 41)
        )
        return Look(at, replace(STATUS, connections=40, bytes_sent=step * 1000, cpu_seconds=step / 2), connections)

    before, after = seen(1.0, 0), seen(3.0, 1)
    lines = status_text.top(before, after, 60, 10)
    assert len(lines) == 10
    assert max(map(len, lines)) <= 60
    assert "out 500 B/s" in lines[1]
    assert "processors 25 %" in lines[2]
    assert lines[4].split() == ["ID", "USER", "FROM", "IDLE", "IN/s", "OUT/s", "WHAT"]
    assert [line.split()[1] for line in lines[5:9]] == ["user40", "user39", "user38", "user37"]
    assert lines[9] == "... and 36 more"
    for columns, rows in [(1, 1), (20, 3), (200, 100)]:
        lines = status_text.top(None, after, columns, rows)
        assert 0 < len(lines) <= rows
        assert max(map(len, lines)) <= columns


def test_the_rate_of_a_new_connection_counts_from_its_start() -> None:
    before = Look(1.0, STATUS, (CONNECTION,))
    new = replace(CONNECTION, id=8, bytes_received=300, bytes_sent=50)
    old = replace(CONNECTION, bytes_received=2048 + 200)
    assert status_text.rates(before, Look(3.0, STATUS, (old, new))) == {7: Rate(100, 0), 8: Rate(150, 25)}
    assert status_text.rates(None, before) == {}


# Commands.


@asynccontextmanager
async def console(**options: Any) -> AsyncIterator[tuple[Console, Api]]:
    async with serving("loop", Running()) as running:
        yield Console(running.server, **{"may_change": True, **options}), running


async def said(console: Console, line: str) -> str:
    return "\n".join((await console.run(line.split())).lines)


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("sesions", 2, "there is no command sesions; did you mean sessions?"),
        ("xyzzy", 2, "there is no command xyzzy; help lists the commands"),
        ("\x1b[2J", 2, "there is no command \\x1b[2J; help lists the commands"),
        ("status now", 2, "usage: status"),
        ("session", 2, "usage: session N"),
        ("session x", 2, "x is no connection's number; sessions lists them"),
        ("session -1", 2, "-1 is no connection's number; sessions lists them"),
        ("session 99999999999999999999", 2, "99999999999999999999 is no connection's number; sessions lists them"),
        ("session 12", 1, "there is no connection 12; sessions lists them"),
        ("kill", 2, "usage: kill N [TEXT]"),
        ("kill 12", 1, "there is no connection 12; sessions lists them"),
        ("rekey 12", 1, "there is no connection 12; sessions lists them"),
        ("log loud", 2, "level: 'loud' is none of error, warning, info, debug"),
        ("log info roof", 2, "part: 'roof' is none of server, transport, auth, session, forward, daemon, plugin.NAME"),
        ("drain soon", 2, "soon is no number of seconds from 0 to 604800"),
        ("drain nan", 2, "nan is no number of seconds from 0 to 604800"),
        ("drain -1", 2, "-1 is no number of seconds from 0 to 604800"),
        ("help me", 2, "there is no command me; help lists the commands"),
    ],
)
async def test_what_is_wrong(line: str, status: int, message: str) -> None:
    async with console() as (operator, _):
        with pytest.raises(CommandError) as caught:
            await operator.run(line.split())
        assert (str(caught.value), caught.value.status) == (message, status)


@pytest.mark.parametrize("line", ["kill 1", "rekey 1", "log debug", "drain", "drain 1"])
async def test_who_may_only_look(line: str) -> None:
    async with console(may_change=False, refusal="you are not") as (operator, running):
        client = await running.login()
        with pytest.raises(CommandError, match=f"^{line.partition(' ')[0]}: you are not$"):
            await operator.run(line.split())
        assert "Here you are not." in " ".join((await said(operator, "help kill")).split())
        for allowed in ("status", "sessions", "session 1", "log", "limits", "help"):
            assert await said(operator, allowed)
        assert not client.eof
        assert not running.server.draining


async def test_limits_of_who_may_connect() -> None:
    admission = Admission(
        startups=StartupLimit(3, 50, 7), per_source=2, random=lambda: 0.5, exempt=(Network("192.0.2.0/24"),)
    )
    async with serving("loop", Running(), admission=admission) as running:
        found = await Console(running.server, may_change=False).run(["limits"])
    lines = [*found.lines]
    first = lines.index("of who may connect")
    assert lines[first : first + 4] == [
        "of who may connect",
        "  max_startups                    3:50:7",
        "  max_startups_per_source         2",
        "  source_bits                     32:64",
    ]
    assert "  penalty_crash_seconds           90" in lines
    assert lines[-1] == "  penalty_exempt                  192.0.2.0/24"
    assert isinstance(found.data, dict)
    assert found.data["admission"]["penalty_max_seconds"] == 600.0


async def test_commands_do_what_they_say() -> None:
    async with console() as (operator, running):
        client = await running.login()
        channel = await begin(client, XTERM, command="cat")
        assert f" {USER} " in await said(operator, "sessions")
        assert "exec cat (xterm 80x24)" in await said(operator, "sessions")
        assert "exec cat (xterm 80x24)" in await said(operator, "session 1")
        assert await said(operator, "rekey 1") == "connection 1 exchanges its keys anew"
        await client.until(lambda: client.engine.rekeys == 1)
        assert "rekeys       1" in await said(operator, "session 1")
        assert await said(operator, "kill 1 go away") == "connection 1 is ended"
        with pytest.raises(AssertionError, match="ended before that"):
            await client.until(lambda: channel is None)
        assert client.ended is not None
        assert client.ended.text == "go away"
        limits = await said(operator, "limits")
        assert "rekey_seconds" in limits
        assert "max_startups" not in limits
        waiting = running.dial()
        while not running.server.connections:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
        with pytest.raises(CommandError, match="nobody has logged in on connection 2 yet"):
            await operator.run(["rekey", "2"])
        waiting.close()


async def test_rates_are_those_of_two_looks() -> None:
    async with console() as (operator, running):
        client = await running.login()
        await begin(client, command="cat /dev/zero")
        reply: Any = (await operator.run(["session", "1"])).data
        assert reply["sent_per_second"] > 1000
        assert reply["channels"][0]["sent_per_second"] > 1000
        assert reply["channels"][0]["received_per_second"] == 0
        reply = (await operator.run(["top"])).data
        assert reply["sessions"][0]["sent_per_second"] > 1000


async def test_drain_is_said_and_done() -> None:
    async with console() as (operator, running):
        client = await running.login()
        channel = await begin(client, command="cat")
        assert await said(operator, "drain 60") == (
            "nobody new is let in; the server ends with the last of 1 channels, or in 60 s"
        )
        with pytest.raises(CommandError, match="drained already"):
            await operator.run(["drain"])
        client.send_eof(channel)
        await running.server.wait_closed()


async def test_every_command_has_help_and_json() -> None:
    async with console() as (operator, running):
        await running.login()
        everything = await said(operator, "help")
        for name, command in Console.commands.items():
            if command.daemon:
                assert command.usage not in everything
                with pytest.raises(CommandError, match="on the server's machine"):
                    await operator.run([name])
                continue
            assert command.usage in everything
            assert command.usage in await said(operator, f"help {name}")
            if name not in {"kill", "drain"}:
                words = [name, *["1"] * command.least]
                json.dumps((await operator.run(words)).data)


async def test_completion() -> None:
    async with console() as (operator, running):

        def complete(line: str) -> list[str]:
            return list(operator.complete(line, len(line)))

        assert complete("s") == ["session", "sessions", "status"]
        assert complete("help ki") == ["kill"]
        assert complete("log d") == ["debug"]
        assert complete("log debug a") == ["auth"]
        assert complete("session ") == []
        await running.login()
        await running.login()
        await operator.prepare()
        assert complete("session ") == ["1", "2"]
        assert complete("kill  2") == ["2"]
        assert complete("kill 1 ") == []
        assert operator.complete("status", 1) == ["session", "sessions", "status"]


def test_json_may_be_asked_for_anywhere() -> None:
    assert split("session --json 3") == (["session", "3"], True)
    assert split("  ") == ([], False)


# The shell.


def operating() -> Any:
    return StatusShell([USER])


@every_placement
async def test_commands_over_ssh(placement: str) -> None:
    async with serving(placement, operating()) as running:
        client = await running.login()
        channel = await client.run("status --json")
        assert channel.status == 0
        assert json.loads(channel.out)["logins"] == 1
        channel = await client.run("sessions --json")
        (found,) = json.loads(channel.out)
        assert found["channels"][0]["detail"] == "sessions --json"
        assert found["channels"][0]["served_by"] == "StatusShell"
        channel = await client.run("kill 99")
        assert (channel.status, channel.out) == (1, b"")
        assert channel.err == b"there is no connection 99; sessions lists them\n"
        assert (await client.run("what")).status == 2
        assert b"ID" in (await client.run("top")).out


@every_placement
async def test_drain_over_ssh_lets_the_operator_go_on(placement: str) -> None:
    async with serving(placement, operating()) as running:
        client = await running.login()
        channel = await begin(client)
        client.send(channel, b"drain 60\n")
        await client.until(lambda: b"nobody new" in channel.out)
        client.send(channel, b"status\n")
        await client.until(lambda: b"draining" in channel.out)
        client.send(channel, b"exit\n")
        assert await ended(client, channel) == 0
        await running.server.wait_closed()


async def test_who_is_no_operator_may_only_look() -> None:
    made = status_shell(Context("status", Options(), None, "info"))  # type: ignore[arg-type] # nothing is logged
    async with serving("loop", made) as running:
        client = await running.login()
        assert (await client.run("status")).status == 0
        channel = await client.run("kill 1")
        assert channel.status == 1
        assert channel.err == f"kill: {USER} is none of the operators, and may only look\n".encode()
        assert not client.eof


async def test_lines_without_a_terminal() -> None:
    async with serving("loop", subsystems={"status": operating()}) as running:
        client = await running.login()
        channel = await begin(client, subsystem="status")
        client.send(channel, b"\nlog\nwhat\nexit\nlimits\n")
        assert await ended(client, channel) == 0
        assert b"transport" in channel.out
        assert b"rekey_seconds" not in channel.out
        assert channel.err.startswith(b"there is no command what; ")


async def test_a_conversation_at_a_terminal() -> None:
    async with serving("loop", operating()) as running:
        client = await running.login()
        channel = await begin(client, XTERM)
        screen = Emulator(80, 50)

        async def shows(text: str) -> None:
            def there() -> bool:
                screen.reset()
                screen.feed(bytes(channel.out))
                return any(text in row for row in screen.rows)

            await client.until(there)

        await shows("help lists the commands")
        client.send(channel, b"limi\t\r")
        await shows("keepalive_count_max")
        client.send(channel, b"session \t\t")
        await shows("dunnart> session 1")
        client.send(channel, b"\x03")
        client.send(channel, b"whoami\r")
        await shows("there is no command whoami")
        assert not channel.err
        client.send(channel, b"\x04")
        assert await ended(client, channel) == 0


async def test_top_follows_the_terminal() -> None:
    async with serving("loop", operating()) as running:
        client = await running.login()
        channel = await begin(client, PtyRequest("xterm", 60, 8, 0, 0, b""))
        others = [await running.login() for _ in range(12)]
        client.send(channel, b"top\r")

        def frame(columns: int, rows: int) -> list[str]:
            screen = Emulator(columns, rows)
            screen.feed(bytes(channel.out).rpartition(b"\x1b[?1049h")[2].rpartition(b"\x1b[H")[2])
            return screen.rows

        await client.until(lambda: len(frame(60, 8)) == 8)
        assert frame(60, 8)[0].startswith("dunnart, up")
        assert frame(60, 8)[-1] == "... and 11 more"
        client.request(channel, WindowChange(100, 30, 0, 0))
        await client.until(lambda: len(frame(100, 30)) == 5 + 13)
        client.send(channel, b"x")
        before = len(channel.out)
        await client.until(lambda: len(channel.out) > before)
        client.send(channel, b"q")
        await client.until(lambda: channel.out.endswith(b"dunnart> "))
        assert channel.out.count(b"\x1b[?1049l") == 1
        client.send(channel, b"exit\r")
        assert await ended(client, channel) == 0
        assert not any(each.eof for each in others)


async def test_top_of_a_client_that_vanishes_ends() -> None:
    async with serving("thread", operating()) as running:
        client = await running.login()
        channel = await begin(client, XTERM)
        client.send(channel, b"top\r")
        await client.until(lambda: b"logins/s" in channel.out)
        client.reset()
        while running.server.connections:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
        assert running.server.counters["failures"] == 0
