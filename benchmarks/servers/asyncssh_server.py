"""A server on asyncssh: `python -m benchmarks.servers.asyncssh_server PORT HOST_KEY AUTHORIZED_KEYS`.

Tuned as far as its API goes: keys are parsed once and not for each login, no GSSAPI host name look-up, large reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Any

import asyncssh

from benchmarks.processes import login_shell, session_environment

CHUNK_BYTES = 256 * 1024


async def _to_program(source: asyncssh.SSHReader[bytes], sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncssh.Error):
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()
    sink.close()


async def _from_program(
    source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes], program: asyncio.subprocess.Process
) -> None:
    try:
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()
    except (ConnectionError, asyncssh.Error):  # the client went
        with contextlib.suppress(ProcessLookupError):
            program.terminate()


async def _on_pipes(session: asyncssh.SSHServerProcess[bytes], arguments: list[str]) -> None:
    pipe = asyncio.subprocess.PIPE
    program = await asyncio.create_subprocess_exec(
        *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=session_environment(), limit=CHUNK_BYTES
    )
    if program.stdin is None or program.stdout is None or program.stderr is None:
        raise RuntimeError("no pipes")
    feeding = asyncio.create_task(_to_program(session.stdin, program.stdin))
    await asyncio.gather(
        _from_program(program.stdout, session.stdout, program),
        _from_program(program.stderr, session.stderr, program),
        program.wait(),
    )
    feeding.cancel()
    session.exit(program.returncode or 0)


async def _on_pty(session: asyncssh.SSHServerProcess[bytes], arguments: list[str]) -> None:
    loop = asyncio.get_running_loop()
    master, slave = os.openpty()
    program = await asyncio.create_subprocess_exec(
        *arguments, stdin=slave, stdout=slave, stderr=slave, env=session_environment(), start_new_session=True
    )
    os.close(slave)

    def readable() -> None:
        try:
            session.stdout.write(os.read(master, CHUNK_BYTES))
        except OSError:
            loop.remove_reader(master)

    loop.add_reader(master, readable)
    with contextlib.suppress(ConnectionError, asyncssh.Error):
        while data := await session.stdin.read(CHUNK_BYTES):
            os.write(master, data)
    loop.remove_reader(master)
    program.terminate()
    await program.wait()
    os.close(master)
    session.exit(0)


async def _serve_session(session: asyncssh.SSHServerProcess[bytes]) -> None:
    shell = login_shell()
    arguments = [shell, "-c", session.command] if session.command else [shell]
    if session.term_type is None:
        await _on_pipes(session, arguments)
    else:
        await _on_pty(session, arguments)


async def _main(port: int, host_key: str, authorized_keys: str) -> None:
    options: dict[str, Any] = {  # the library's own signature is a dictionary of 83 options
        "server_host_keys": asyncssh.load_keypairs([host_key]),
        "authorized_client_keys": asyncssh.read_authorized_keys(authorized_keys),
        "process_factory": _serve_session,
        "sftp_factory": True,
        "encoding": None,
        "line_editor": False,
        "gss_host": None,
        "login_timeout": 0,
    }
    server = await asyncssh.listen("127.0.0.1", port, backlog=1000, **options)
    print("listening", flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
