"""What is measured. Each function takes a `Bench` and adds its samples, one for each metric, peer and round."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from ssh2.exceptions import SSH2Error

from benchmarks import files, forwards, start, weight
from benchmarks.bench import Bench, tell, type_keys
from benchmarks.clients import ClientError, Login
from benchmarks.peers import Embedded, Running
from benchmarks.processes import GB, KIB, MIB, command_seconds, login_shell, own_use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CIPHERS = {
    "aes128-gcm": ("-c", "aes128-gcm@openssh.com"),
    "chacha20-poly1305": ("-c", "chacha20-poly1305@openssh.com"),
    # The plain MAC is for Dropbear, which has no -etm; whoever has both takes the first.
    "aes128-ctr+hmac": ("-c", "aes128-ctr", "-m", "hmac-sha2-256-etm@openssh.com,hmac-sha2-256"),
}
MOST_MEMORY_BYTES = 6 * 1024 * MIB


def bulk(bench: Bench) -> None:
    """MB/s and server CPU-s per GB, down and up, for each cipher; the time includes the client's login."""
    size = (256 if bench.quick else 2048) * MIB
    commands = {"down": f"head -c {size} /dev/zero; times >&2", "up": "cat >/dev/null; times >&2"}
    with bench.servers() as servers:
        for (cipher, options), (direction, command) in itertools.product(CIPHERS.items(), commands.items()):

            def transfer(server: Running) -> None:
                before = server.cpu_seconds()
                seconds, times = _transfer(bench, server, command, size, *options)  # noqa: B023 - called in this turn
                server.settle()
                cpu = server.cpu_seconds() - before - own_use(times)
                metric = f"bulk.{cipher}.{direction}"  # noqa: B023
                bench.add(f"{metric}.MB/s", server.name, size / 1e6 / seconds)
                bench.add(f"{metric}.CPU-s/GB", server.name, cpu / (size / GB))

            able = [server for server in servers if _has(bench, server, cipher, *options)]
            bench.take_turns(f"bulk {direction}, {cipher}", able, transfer)


def _has(bench: Bench, server: Running, cipher: str, *options: str) -> bool:
    try:
        bench.ssh.run(server.port, "true", *options)
    except ClientError:
        bench.skip(f"{server.name} has no {cipher}")
        return False
    return True


def _transfer(bench: Bench, server: Running, command: str, size: int, *options: str) -> tuple[float, str]:
    if command.startswith("head"):
        return bench.ssh.run(server.port, command, *options)
    with subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE) as source:
        if source.stdout is None:
            raise RuntimeError("no pipe")
        return bench.ssh.run(server.port, command, *options, source=source.stdout.fileno())


def logins(bench: Bench) -> None:
    """CPU-ms a login, without and with exec of `true`; logins a second, 1 and 16 at a time; 200 at once; wall time."""
    count = 32 if bench.quick else 192
    crowd = 200
    own = command_seconds("true")
    if own > 0.005:
        bench.skip(f"nothing, but `{login_shell()} -c true` takes {own * 1000:.0f} CPU-ms here, which blurs login+exec")

    def log_in(server: Running) -> None:
        with Login(bench.identity, server.port):
            pass

    def run_true(server: Running) -> None:
        with Login(bench.identity, server.port) as login:
            if status := login.run("true"):
                raise ClientError(f"true ended with {status}")

    def one_and_sixteen(server: Running, title: str, work: Callable[[Running], None], own_seconds: float) -> None:
        for clients in (1, 16):
            before = server.cpu_seconds()
            seconds, errors = _crowd(server, work, count, clients)
            server.settle()
            cpu = (server.cpu_seconds() - before) / count - own_seconds
            bench.add(f"{title}.{clients} at a time.errors", server.name, errors)
            if not errors:  # what was refused was quick, and says nothing about speed
                bench.add(f"{title}.{clients} at a time.per second", server.name, count / seconds)
                if clients == 1:
                    bench.add(f"{title}.CPU-ms", server.name, cpu * 1000)

    def at_once(server: Running) -> None:
        seconds, errors = _crowd(server, run_true, crowd, crowd)
        bench.add(f"login+exec.{crowd} at once.errors", server.name, errors)
        if not errors:
            bench.add(f"login+exec.{crowd} at once.seconds", server.name, seconds)

    def wall(server: Running) -> None:
        bench.add("ssh host true.ms", server.name, bench.ssh.run(server.port, "true")[0] * 1000)

    with bench.servers() as servers:
        bench.take_turns("login", servers, lambda server: one_and_sixteen(server, "login", log_in, 0))
        bench.take_turns("login+exec", servers, lambda server: one_and_sixteen(server, "login+exec", run_true, own))
        bench.take_turns(f"{crowd} clients at once", servers, at_once)
        bench.take_turns("ssh host true", servers, wall, 10 if bench.quick else 40)


def _crowd(server: Running, work: Callable[[Running], None], count: int, clients: int) -> tuple[float, int]:
    """Do `work` `count` times in `clients` threads and return the seconds it took and how often it failed."""
    errors: list[str] = []
    gate = threading.Barrier(clients + 1)

    def client() -> None:
        gate.wait()
        for _ in range(count // clients):
            try:
                work(server)
            except Exception as error:  # noqa: BLE001 - libssh2's errors have no common base but this; they are counted
                errors.append(repr(error))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    gate.wait()
    start = time.monotonic()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    if errors:
        tell(f"    {server.name}: {len(errors)} of {count} failed, first: {errors[0]}")
    return seconds, len(errors)


def echo(bench: Bench) -> None:
    """Keystroke echo through `cat` on a raw pty, idle and beside a download; a login while four downloads run."""
    keys = 100 if bench.quick else 500
    attempts = 10 if bench.quick else 100

    def beside(server: Running, title: str, downloads: int) -> None:
        with _downloads(bench, server, downloads), Login(bench.identity, server.port) as login:
            bench.percentiles(f"echo.{title}", server.name, type_keys(login.typist(), keys))

    def log_in(server: Running) -> None:
        with _downloads(bench, server, 4):
            bench.percentiles("login.beside 4 downloads", server.name, _log_in(bench, server, attempts))

    with bench.servers() as servers:
        bench.take_turns("echo, idle", servers, lambda server: beside(server, "idle", 0))
        bench.take_turns("echo beside a download", servers, lambda server: beside(server, "beside a download", 1))
        bench.take_turns("login beside 4 downloads", servers, log_in)


def _log_in(bench: Bench, server: Running, attempts: int) -> list[float]:
    waits = []
    for _ in range(attempts):
        start = time.perf_counter()
        with Login(bench.identity, server.port):
            waits.append(time.perf_counter() - start)
    return waits


def disturbed(bench: Bench) -> None:
    """What other sessions feel of a handler that computes in Python, or blocks: keystroke echo and logins.

    The peers are dunnart embedded in a program, with the protocol in a thread and in a process of its own. The echo
    comes from a handler in a thread of the program, and from `cat`.
    """
    keys = 100 if bench.quick else 500
    attempts = 20 if bench.quick else 100
    commands = {"a handler": "echo", "cat": "stty raw -echo; echo ready; exec cat"}

    def disturb(server: Running, title: str, command: str) -> None:
        with contextlib.ExitStack() as stack:
            if command:
                disturbing = stack.enter_context(Login(bench.identity, server.port))
                stack.callback(id, disturbing.open(command))  # kept until then
                time.sleep(0.2)  # a handler says nothing when it has begun to burn
            for what, echo_command in commands.items():
                with Login(bench.identity, server.port) as login:
                    waits = type_keys(login.typist(echo_command), keys)
                bench.percentiles(f"disturbed.echo of {what}, {title}", server.name, waits)
            bench.percentiles(f"disturbed.login, {title}", server.name, _log_in(bench, server, attempts))
        server.settle()

    peers = [Embedded(placement) for placement in ("thread", "process")]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Running(peer, bench.identity)) for peer in peers]
        for title, command in (("idle", ""), ("beside one that burns", "burn"), ("beside one that blocks", "block")):
            bench.take_turns(
                f"echo and login, {title}", servers, functools.partial(disturb, title=title, command=command)
            )


@contextlib.contextmanager
def _downloads(bench: Bench, server: Running, count: int) -> Iterator[None]:
    """Keep endless downloads running with OpenSSH's client and its first choice of cipher."""
    command = "echo flowing >&2; exec cat /dev/zero"
    clients = [
        subprocess.Popen(
            bench.ssh.arguments(server.port, command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(count)
    ]
    try:
        for client in clients:
            if client.stderr is None or client.stderr.readline() != b"flowing\n":
                raise ClientError(f"{server.name}: a download did not start")
        before = server.cpu_seconds()
        while clients and server.cpu_seconds() < before + 0.1:
            time.sleep(0.02)
        yield
    finally:
        for client in clients:
            client.terminate()
        for client in clients:
            client.communicate()


def memory(bench: Bench) -> None:
    """PSS of the server's processes with idle sessions, each with one open channel that runs `cat`."""
    counts = (0, 1, 10, 50) if bench.quick else (0, 1, 10, 100, 500)
    available = _available_bytes()
    for number in range(1 if bench.quick else min(bench.rounds, 3)):
        tell(f"memory, round {number + 1}")
        for peer in bench.peers:
            try:
                with Running(peer, bench.identity) as server:
                    _fill(bench, server, counts, min(MOST_MEMORY_BYTES, available // 2))
            except (RuntimeError, OSError, ClientError, SSH2Error) as error:
                bench.skip(f"{peer.name}, memory: {error!r}")


def _fill(bench: Bench, server: Running, counts: tuple[int, ...], most_bytes: int) -> None:
    held: list[tuple[Login, object]] = []
    points: dict[int, int] = {}
    try:
        for count in counts:
            if len(points) > 2:
                expected = points[0] + count * _slope(points)
                if expected > most_bytes:
                    bench.skip(f"{server.name} with {count} sessions, which would take {expected / GB:.1f} GB")
                    break
            while len(held) < count:
                login = Login(bench.identity, server.port)
                held.append((login, login.open("cat")))
            points[count] = _steady_pss(server)
            bench.add(f"memory.{count} sessions.MB", server.name, points[count] / 1e6)
            if count == 1:
                bench.add("memory.first session.KiB", server.name, (points[1] - points[0]) / KIB)
        bench.add("memory.each session.KiB", server.name, _slope(points) / KIB)
    finally:
        for login, _ in held:
            login.close()
        held.clear()
        gc.collect()


def _slope(points: dict[int, int]) -> float:
    """Return the bytes that each session adds, once the first is there, which loads what all share."""
    last = max(points)
    return (points[last] - points[1]) / (last - 1)


def _steady_pss(server: Running) -> int:
    """Wait until two readings agree within 4 KiB or 1 in 1,000."""
    before = server.pss_bytes()
    for _ in range(40):
        time.sleep(0.25)
        now = server.pss_bytes()
        if abs(now - before) <= max(4 * KIB, now // 1000):
            return now
        before = now
    return before


def _available_bytes() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * KIB for line in file if line.startswith("MemAvailable:"))


MEASURES: dict[str, Callable[[Bench], None]] = {
    "bulk": bulk, "logins": logins, "echo": echo, "disturbed": disturbed, "memory": memory, "files": files.files,
    "forwards": forwards.forwards, "weight": weight.weight, "start": start.start,
}  # fmt: skip
