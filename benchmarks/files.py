"""Files over SFTP with OpenSSH's client: a large file, many small ones, a large folder, and who is disturbed by it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from benchmarks.bench import type_keys
from benchmarks.clients import ClientError, Login
from benchmarks.processes import GB, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.peers import Running

CIPHERS = {
    "aes128-gcm": ("-c", "aes128-gcm@openssh.com"),
    "chacha20-poly1305": ("-c", "chacha20-poly1305@openssh.com"),
}


def sftp(bench: Bench, port: int, commands: str, *options: str) -> float:
    """Run commands in OpenSSH's sftp, beside the ssh of the run; gives the seconds.

    Raises:
        ClientError: one of them failed.
    """
    start = time.monotonic()
    done = subprocess.run(
        sftp_arguments(bench, port, *options), input=commands, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        check=False, text=True, timeout=600,
    )  # fmt: skip
    seconds = time.monotonic() - start
    if done.returncode:
        raise ClientError(f"sftp ended with {done.returncode}: {done.stderr.strip()}")
    return seconds


def sftp_arguments(bench: Bench, port: int, *options: str) -> list[str]:
    """Make its command line; what is specific to the run is what ssh gets, too."""
    ssh = bench.ssh.arguments(port, "")[:-2]  # without host and command
    ssh.remove("-T")
    program = shutil.which(ssh[0]) or ssh[0]
    beside = os.path.join(os.path.dirname(program), "sftp")
    return [beside, "-q", "-b", "-", "-S", program, *options, *ssh[1:], "127.0.0.1"]


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """Make a folder in memory, where there is such a place: it is not the disk that is measured."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="dunnart-bench-", dir=place) as folder:
        yield folder


def files(bench: Bench) -> None:
    """MB/s and CPU-s per GB of a large file, seconds and CPU-s of many files and of a large folder, and echo."""
    with _folder() as folder, bench.servers() as started:
        servers = []
        for server in started:  # what is started on first use is there
            try:
                sftp(bench, server.port, "pwd\n")
            except ClientError as error:  # Dropbear's runs a program of another package
                bench.skip(f"{server.name}, files: {error}")
                continue
            server.rest()
            servers.append(server)
        _large(bench, servers, folder)
        _small(bench, servers, folder)
        _listing(bench, servers, folder)
        _echo(bench, servers, folder)


def _large(bench: Bench, servers: list[Running], folder: str) -> None:
    size = (128 if bench.quick else 1024) * MIB
    source, target = os.path.join(folder, "large"), os.path.join(folder, "copy")
    with open(source, "wb") as file:
        file.writelines(os.urandom(MIB) for _ in range(size // MIB))
    directions = {"down": f"get {source} /dev/null\n", "up": f"put {source} {target}\n"}
    for cipher, options in CIPHERS.items():
        for direction, command in directions.items():

            def transfer(server: Running) -> None:
                before = server.cpu_seconds()
                seconds = sftp(bench, server.port, command, *options)  # noqa: B023 - called in this turn
                server.settle()
                metric = f"files.1 GiB {direction}, {cipher}"  # noqa: B023
                bench.add(f"{metric}.MB/s", server.name, size / 1e6 / seconds)
                bench.add(f"{metric}.CPU-s/GB", server.name, (server.cpu_seconds() - before) / (size / GB))
                if os.path.exists(target):
                    os.unlink(target)

            bench.take_turns(f"file {direction}, {cipher}", servers, transfer)
    os.unlink(source)


def _small(bench: Bench, servers: list[Running], folder: str) -> None:
    count = 200 if bench.quick else 2000
    source, target = os.path.join(folder, "small"), os.path.join(folder, "there")
    os.mkdir(source)
    for number in range(count):
        with open(os.path.join(source, f"file {number}"), "wb") as file:
            file.write(os.urandom(4 * KIB))

    def transfer(server: Running) -> None:
        for direction, command in (("up", f"put -r {source} {target}\n"), ("down", f"get -r {source} {target}\n")):
            before = server.cpu_seconds()
            seconds = sftp(bench, server.port, command)
            arrived = len(os.listdir(target))
            shutil.rmtree(target)
            if arrived != count:
                raise ClientError(f"{arrived} of {count} files arrived")
            server.settle()
            bench.add(f"files.{count} of 4 KiB {direction}.seconds", server.name, seconds)
            bench.add(f"files.{count} of 4 KiB {direction}.CPU-s", server.name, server.cpu_seconds() - before)

    bench.take_turns(f"{count} files", servers, transfer)


def _listing(bench: Bench, servers: list[Running], folder: str) -> None:
    count = 10_000 if bench.quick else 100_000
    place = os.path.join(folder, "listed")
    os.mkdir(place)
    for number in range(count):
        os.close(os.open(os.path.join(place, f"entry-{number:06d}"), os.O_CREAT | os.O_WRONLY))

    def listing(server: Running) -> None:
        before = server.cpu_seconds()
        bench.add(f"files.listing of {count}.seconds", server.name, sftp(bench, server.port, f"ls -1f {place}\n"))
        server.settle()
        bench.add(f"files.listing of {count}.CPU-s", server.name, server.cpu_seconds() - before)

    def memory(server: Running) -> None:
        at_rest, most, done = server.pss_bytes(), 0, threading.Event()

        def look() -> None:
            nonlocal most
            while not done.wait(0.02):
                most = max(most, server.pss_bytes())

        looking = threading.Thread(target=look)
        looking.start()
        try:
            sftp(bench, server.port, f"ls -1f {place}\n")
        finally:
            done.set()
            looking.join()
        bench.add(f"files.listing of {count}.MB more at most", server.name, (most - at_rest) / 1e6)

    bench.take_turns(f"listing of {count}", servers, listing)
    bench.take_turns(f"listing of {count}, memory", servers, memory, 1)


def _echo(bench: Bench, servers: list[Running], folder: str) -> None:
    count = 100 if bench.quick else 500
    source = os.path.join(folder, "endless")
    with open(source, "wb") as file:
        file.truncate(64 * 1024 * MIB)  # sparse: it takes no room, and longer than the keys to come

    def beside(server: Running) -> None:
        for title, commands in (("idle", ""), ("beside a file", f"get {source} /dev/null\n")):
            with contextlib.ExitStack() as stack:
                if commands:
                    stack.enter_context(_going_on(bench, server, commands))
                login = stack.enter_context(Login(bench.identity, server.port))
                bench.percentiles(f"files.echo {title}", server.name, type_keys(login.typist(), count))

    bench.take_turns("echo beside a file", servers, beside)


@contextlib.contextmanager
def _going_on(bench: Bench, server: Running, commands: str) -> Iterator[None]:
    """Let a transfer go on meanwhile."""
    with subprocess.Popen(
        sftp_arguments(bench, server.port), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, text=True,
    ) as client:  # fmt: skip
        try:
            if client.stdin is None:
                raise RuntimeError("no pipe")
            client.stdin.write(commands)
            client.stdin.flush()
            before, deadline = server.cpu_seconds(), time.monotonic() + 20
            while server.cpu_seconds() < before + 0.3:
                if time.monotonic() > deadline or client.poll() is not None:
                    raise ClientError(f"{server.name}: a transfer did not start")
                time.sleep(0.02)
            yield
            if client.poll() is not None:
                raise ClientError(f"{server.name}: the transfer ended too early")
        finally:
            client.terminate()
