"""Programs behind channels: their streams, ends, signals and terminals."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from pathlib import Path

import pytest

from dunnart.protocol.requests import (
    BreakRequest,
    EndOfWrite,
    EnvironmentRequest,
    ExecRequest,
    PtyRequest,
    ShellRequest,
    SignalRequest,
    SubsystemRequest,
    WindowChange,
    encode_modes,
)
from dunnart.runtime import bridge
from dunnart.runtime.process import Command
from dunnart.server import RawSession
from tests.runtime.driver import KIB, MIB, USER, Beginning, Channel, Client, alive, eventually, exists, serving


async def test_a_command_has_its_output_status_and_end_in_order() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.run("printf hello; exit 7")
        assert (channel.out, channel.status) == (b"hello", 7)
        assert channel.order.index("data") < channel.order.index("eof") < channel.order.index("close")
        assert channel.order.index("status") < channel.order.index("close")
        assert channel.order.count("status") == channel.order.count("eof") == 1


async def test_stderr_is_a_stream_of_its_own() -> None:
    async with serving() as server:
        client = await server.login()
        script = "for i in 1 2 3; do printf o$i; printf e$i >&2; done; head -c 300000 /dev/zero >&2; printf end"
        channel = await client.run(script)
        assert channel.out == b"o1o2o3end"
        assert channel.err == b"e1e2e3" + bytes(300_000)


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV"])
async def test_a_program_killed_by_a_signal_has_no_status(name: str) -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.run(f"ulimit -c 0; kill -{name} $$")
        assert (channel.status, channel.signal) == (None, name)


async def test_a_signal_without_a_name_in_the_protocol() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.run(f"kill -{int(signal.SIGVTALRM)} $$")
        assert channel.signal == "SIG@openssh.com"


async def test_an_upload_arrives_whole_after_which_the_program_still_speaks() -> None:
    data = os.urandom(5 * MIB + 17)
    async with serving() as server:
        client = await server.login()
        channel = await client.run("sha256sum; echo done", data)
        assert channel.out.decode() == f"{hashlib.sha256(data).hexdigest()}  -\ndone\n"
        assert channel.status == 0


async def test_the_output_of_a_program_that_closed_its_input_goes_on() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.exec("exec <&-; read x < /dev/null; head -c 3000000 /dev/zero")
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        assert len(channel.out) == 3_000_000


async def test_a_program_may_close_its_output_and_read_on() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.exec("printf x; exec >&- 2>&-; exit $(wc -c)")
        await client.until(lambda: channel.eof)
        assert channel.status is None
        await client.send_all(channel, bytes(77))
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        assert channel.status == 77


@pytest.mark.parametrize("command", ["true", "exit 3", "head -c 1 >/dev/null", "exec <&-; exit 3", "kill -9 $$"])
async def test_uploads_into_programs_that_do_not_read_them(command: str) -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.exec(command)
        await client.send_all(channel, bytes(4 * MIB))
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        assert (channel.status, channel.signal) != (None, None)
        assert (await client.run("echo still here")).out == b"still here\n"


async def test_data_before_close_reaches_the_program(tmp_path: Path) -> None:
    """The client half-closes and closes, while the program has yet to read more than a pipe holds."""
    go, file = tmp_path / "go", tmp_path / "size"
    async with serving() as server:
        client = await server.login()
        wait = f"until [ -e {go} ]; do sleep 0.01; done"
        channel = await client.exec(f"{wait}; wc -c >{file}.part; mv {file}.part {file}")
        size = 3 * MIB // 2
        assert client.engine.send_data(channel.number, bytes(size)) == size
        client.send_eof(channel)
        client.close_channel(channel)
        await eventually(lambda: server.connections[0].pump.engine.channel(0).close_received)
        go.touch()
        await eventually(file.exists)
        assert int(file.read_text()) == size


async def test_a_client_that_closes_behind_its_data_leaves_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and CLOSE come in one read: the channel is gone before its last data is handed over."""
    monkeypatch.setattr(bridge, "CLOSE_WAITS_SECONDS", 0.1)
    async with serving() as server:
        client = await server.login()
        for connection in server.connections:  # one that is told when nobody reads what it sends
            connection.pump.engine._transport.peer_version = b"SSH-2.0-OpenSSH_9.9"
        channel = await client.exec("exec <&-; echo $$; trap '' PIPE; while :; do sleep 1; done")
        await client.until(lambda: channel.out.endswith(b"\n"))
        pid = int(channel.out)
        client.engine.send_data(channel.number, bytes(KIB))
        client.engine.close_channel(channel.number)
        client.move()
        await client.until(lambda: channel.closed)
        await eventually(lambda: not alive(pid))
        assert (await client.run("echo still here")).out == b"still here\n"


async def test_an_open_program_and_close_in_one_write() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.session()
        client.engine.request(channel.number, ExecRequest(b"sleep 1000"), want_reply=True)
        client.engine.close_channel(channel.number)
        client.move()
        await client.until(lambda: channel.closed)
        assert server.connections[0].sessions == 0
        assert (await client.run("echo still here")).out == b"still here\n"


async def test_a_program_gets_sighup_when_its_client_closes_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "CLOSE_WAITS_SECONDS", 0.1)
    async with serving() as server:
        client = await server.login()
        channel = await client.exec("sleep 1000 & echo $! $$; wait")
        await client.until(lambda: channel.out.endswith(b"\n"))
        pids = [int(word) for word in channel.out.split()]
        client.close_channel(channel)
        await eventually(lambda: not any(map(exists, pids[1:])) and not any(map(alive, pids)))
        assert server.server.connections == 1


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_program_that_heeds_no_sighup_keeps_no_channel(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "CLOSE_WAITS_SECONDS", 0.1)
    async with serving() as server:
        client = await server.login()
        script = "trap '' HUP; echo $$; exec <&- >&- 2>&-; while :; do sleep 0.05; done"
        channel = await on_terminal(client, script) if terminal else await client.exec(script)
        await client.until(lambda: b"\n" in channel.out)
        pid = int(channel.out)
        client.close_channel(channel)
        await client.until(lambda: channel.closed)
        assert alive(pid)
        assert server.connections[0].sessions == 0
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: server.programs == 0)


async def test_output_of_a_process_left_behind_is_waited_for() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.exec("exec 3<&0; (read x <&3; echo late) & exit 4")
        await client.until(lambda: channel.status is not None)
        assert not channel.closed
        await client.send_all(channel, b"go\n")
        await client.until(lambda: channel.closed)
        assert (channel.out, channel.status) == (b"late\n", 4)


async def test_signals_reach_the_program() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.exec("trap 'echo got usr1' USR1; echo ready; while :; do sleep 0.01; done")
        await client.until(lambda: b"ready" in channel.out)
        assert await client.ask(channel, SignalRequest("USR1"))
        await client.until(lambda: b"got usr1\n" in channel.out)
        assert not await client.ask(channel, SignalRequest("NONSENSE"))
        assert not await client.ask(channel, SignalRequest("STOP"))  # RFC 4254 §6.10 does not have it
        assert await client.ask(channel, SignalRequest("KILL"))
        await client.until(lambda: channel.closed)
        assert channel.signal == "KILL"


async def test_signals_before_a_program_are_refused() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, SignalRequest("TERM"))
        assert not await client.ask(channel, BreakRequest(500))


async def test_one_program_a_channel() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.exec("cat")
        assert not await client.ask(channel, ExecRequest(b"echo second"))
        assert not await client.ask(channel, ShellRequest())
        assert not await client.ask(channel, PtyRequest("xterm", 80, 24, 0, 0, b""))
        client.send_eof(channel)
        await client.until(lambda: channel.closed)
        assert channel.out == b""


async def test_what_is_not_offered_is_refused() -> None:
    async with serving(exec=None, shell=None) as server:
        client = await server.login()
        channel = await client.session()
        for request in (ExecRequest(b"true"), ShellRequest(), SubsystemRequest("sftp")):
            assert not await client.ask(channel, request)


async def test_a_refused_command_leaves_no_trace_for_the_next_program() -> None:
    seen: list[tuple[str | None, str | None]] = []

    def shell(session: RawSession) -> bool:
        seen.append((session.command, session.subsystem))
        session.exit(0)
        return True

    async with serving(exec=None, shell=Beginning(shell)) as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, ExecRequest(b"rm -rf /"))
        assert not await client.ask(channel, SubsystemRequest("none"))
        client.request(channel, ShellRequest(), want_reply=True)
        await client.until(lambda: channel.closed)
        assert seen == [(None, None)]


@pytest.mark.parametrize("command", [b"echo a\0b", b"x" * (192 * KIB + 1)])
async def test_commands_that_cannot_be(command: bytes) -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.session()
        assert not await client.ask(channel, ExecRequest(command))
        assert (await client.run("echo still here")).out == b"still here\n"


async def test_the_environment_is_by_allow_list() -> None:
    async with serving(accept_env=("LANG", "LC_*")) as server:
        client = await server.login()
        channel = await client.session()
        wanted = {"LANG": True, "LC_TIME": True, "LD_PRELOAD": False, "lang": False, "LANGUAGE": False, "LC_A=B": False,
                  "LC_A\nB": False, "": False}  # fmt: skip
        for name, accepted in wanted.items():
            assert await client.ask(channel, EnvironmentRequest(name, "C")) is accepted, name
        assert not await client.ask(channel, EnvironmentRequest("LC_NUL", "a\0b"))
        assert not await client.ask(channel, EnvironmentRequest("LC_BIG", "x" * 4096))
        assert await client.ask(channel, ExecRequest(b"env"))
        await client.until(lambda: channel.closed)
        variables = dict(line.split("=", 1) for line in channel.out.decode().splitlines() if "=" in line)
        assert (variables["LANG"], variables["LC_TIME"], variables["USER"]) == ("C", "C", USER)
        assert not {"LD_PRELOAD", "lang", "LANGUAGE", "LC_A", "LC_NUL", "LC_BIG"} & variables.keys()
        host, port = client.sock.getsockname()
        assert variables["SSH_CONNECTION"] == f"{host} {port} 127.0.0.1 {server.address[1]}"


async def test_the_number_of_variables_is_bounded() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.session()
        answers = [await client.ask(channel, EnvironmentRequest(f"LC_{number}", "x")) for number in range(70)]
        assert answers == [True] * 64 + [False] * 6


# Terminals.

MODES = encode_modes({53: 0, 3: 8, 128: 38400, 129: 38400, 255 - 100: 1})


async def on_terminal(client: Client, command: str, modes: bytes = b"", columns: int = 90, rows: int = 30) -> Channel:
    channel = await client.session()
    assert await client.ask(channel, PtyRequest("xterm-256color", columns, rows, 0, 0, modes))
    assert await client.ask(channel, ExecRequest(command.encode()))
    return channel


async def test_a_terminal_echoes_and_has_a_size_and_a_name() -> None:
    async with serving() as server:
        client = await server.login()
        script = "tty; echo $SSH_TTY; stty size; echo $TERM; read line; echo got $line; exit 5"
        channel = await on_terminal(client, script)
        await client.until(lambda: b"xterm-256color" in channel.out)
        await client.send_all(channel, b"hello\r")
        await client.until(lambda: channel.closed)
        lines = channel.out.decode().split("\r\n")
        assert lines[0] == lines[1]
        assert lines[0].startswith("/dev/pts/")
        assert lines[2:] == ["30 90", "xterm-256color", "hello", "got hello", ""]
        assert channel.status == 5


async def test_the_modes_are_set() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await on_terminal(client, "stty -a", modes=MODES)
        await client.until(lambda: channel.closed)
        shown = channel.out.decode()
        assert re.search(r"(?<!\S)-echo(?!\S)", shown)
        assert "erase = ^H" in shown
        assert "speed 38400" in shown


async def test_resizing_tells_the_program() -> None:
    async with serving() as server:
        client = await server.login()
        script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done"
        channel = await on_terminal(client, script)
        await client.until(lambda: b"ready" in channel.out)
        client.request(channel, WindowChange(100, 40, 0, 0))
        await client.until(lambda: b"40 100\r\n" in channel.out)


async def test_no_window_is_too_large() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await on_terminal(client, "while :; do stty size; sleep 0.01; done")
        client.request(channel, WindowChange(0xFFFFFFFF, 20_000, 0xFFFFFFFF, 1))
        await client.until(lambda: b"10000 10000\r\n" in channel.out)


async def test_a_size_of_zero_says_nothing() -> None:
    """RFC 4254 §6.2: zero dimension parameters must be ignored."""
    async with serving() as server:
        client = await server.login()
        channel = await on_terminal(client, "stty size", columns=0, rows=0)
        await client.until(lambda: channel.closed)
        assert channel.out == b"0 0\r\n"


async def test_control_c_and_a_break_reach_the_terminal() -> None:
    async with serving() as server:
        client = await server.login()
        script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.01; done"
        channel = await on_terminal(client, script)
        await client.until(lambda: b"ready" in channel.out)
        assert await client.ask(channel, BreakRequest(100))
        await client.send_all(channel, b"\x03")
        await client.until(lambda: channel.closed)
        assert b"interrupted" in channel.out
        assert channel.status == 9


async def test_a_terminal_goes_on_after_the_clients_eof() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await on_terminal(client, "read line; echo got $line")
        client.send_eof(channel)
        client.request(channel, WindowChange(80, 24, 0, 0))
        assert not channel.closed
        assert not await client.ask(channel, ShellRequest())  # all before it was handled
        assert not channel.eof
        client.close_channel(channel)
        await client.until(lambda: channel.closed)


async def test_the_last_output_on_a_terminal_is_not_lost() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await on_terminal(client, "head -c 400000 /dev/zero | tr '\\0' x; printf end")
        await client.until(lambda: channel.closed)
        assert channel.out == b"x" * 400_000 + b"end"
        assert channel.status == 0


async def test_a_login_ends_with_its_process_though_others_hold_the_terminal() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await on_terminal(client, "trap '' HUP; sleep 1000 & echo $!; exit 0")
        await client.until(lambda: channel.closed)
        assert channel.status == 0
        os.kill(int(channel.out), signal.SIGKILL)


async def test_a_hang_up_reaches_the_terminals_programs() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await on_terminal(client, "sleep 1000 & echo $!; wait")
        await client.until(lambda: b"\n" in channel.out)
        pid = int(channel.out)
        client.reset()
        await eventually(lambda: not alive(pid))
        assert server.server.connections == 0


async def test_terminals_that_cannot_be() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.session()
        for term, modes in (("a b", b"\0"), ("x" * 65, b"\0"), ("vt100", bytes(1025)), ("vt100", b"\x35\0\0")):
            assert not await client.ask(channel, PtyRequest(term, 80, 24, 0, 0, modes)), (term, modes)
        assert await client.ask(channel, PtyRequest("vt100", 80, 24, 0, 0, b""))
        assert not await client.ask(channel, PtyRequest("vt100", 80, 24, 0, 0, b""))


async def test_the_client_may_want_no_more_output() -> None:
    async with serving() as server:
        client = await server.login()
        channel = await client.exec("yes; echo $? >&2")
        channel.keep = False
        await client.until(lambda: channel.received > MIB)
        channel.keep = True
        client.request(channel, EndOfWrite())
        await client.until(lambda: channel.closed)
        assert channel.err.split()[-1] == str(128 + signal.SIGPIPE).encode()


async def test_a_client_with_tiny_packets_gets_everything() -> None:
    """So many packets in one read of the pipe that the system would refuse as many buffers."""
    async with serving() as server:
        client = await server.login()
        number = client.engine.open_channel("session")
        client.channels[number] = channel = Channel(number)
        client.move()
        await client.until(lambda: channel.opened)
        server.connections[0].pump.engine.channel(0).packet_bytes = 1  # as if the client had said so
        assert await client.ask(channel, ExecRequest(b"seq 3000"))
        await client.until(lambda: channel.closed)
        assert channel.out == "".join(f"{number}\n" for number in range(1, 3001)).encode()


async def test_a_program_that_does_not_exist_is_a_refusal() -> None:
    def missing(session: RawSession) -> bool:
        session.run(Command(("no",), "/nonexistent/program", {}, "/"))
        return True

    async with serving(exec=Beginning(missing)) as server:
        client = await server.login()
        for terminal in (False, True):
            channel = await client.session()
            if terminal:
                assert await client.ask(channel, PtyRequest("vt100", 80, 24, 0, 0, b""))
            assert not await client.ask(channel, ExecRequest(b"x"))
        assert server.server.counters["failures"] == 2
        assert server.server.connections == 1
