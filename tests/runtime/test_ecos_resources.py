"""What a server of `dunnart.ecos` uses, measured in a process of its own, and what it does when there is no more."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dunnart
from dunnart.protocol.requests import ShellRequest
from tests.runtime.driver import PASSWORD, SECONDS, USER, Channel, Client, Clients

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Commands come on stdin, answers go to stdout. Sessions are echoed by one thread for all of them.
SERVER = """
import contextlib, gc, json, os, resource, select, sys, threading
from pathlib import Path
from dunnart.ecos import DropbearData, init
from dunnart.keys import PrivateKey

sessions, stderrs = {}, []
wake, woken = os.pipe()

def connected(sock, handle):
    if options.get("support_stderr"):
        stderrs.append(handle.get_stderr())
    sessions[sock] = handle
    os.write(woken, b"x")

def echo():
    while True:
        for each in select.select([wake, *sessions], [], [])[0]:
            if each == wake:
                os.read(wake, 100)
            elif data := each.recv(1000):
                each.sendall(data)
            else:
                handle = sessions.pop(each)
                each.close()
                handle.done(0)

def descriptors():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile; so is the one that lists
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found

def use():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))  # looking takes descriptors
    gc.collect()
    names = [thread.name for thread in threading.enumerate()]
    kinds = descriptors()
    memory = dict(line.split()[:2] for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return {
        "threads": sorted(name for name in names if "callback" not in name),
        "callback_threads": sum("callback" in name for name in names),
        "sockets": sum(kind.startswith("socket:") for kind in kinds),
        "descriptors": len(kinds),
        "bytes": 1024 * int(memory["Anonymous:"]),  # what is shared with other tests' processes counts differently soon
        "connections": daemon.connections(),
        "not_done": daemon.sessions_not_done(),
    }

options = json.loads(sys.argv[1])
threading.Thread(target=echo, name="echo", daemon=True).start()
daemon = init(DropbearData(
    private_host_keys=[PrivateKey.generate("ed25519")], connected=connected, address="127.0.0.1", port=0,
    authenticate_password=lambda user, _, password: (user, password) == (options["user"], options["password"]),
    **options["data"],
))
print(daemon.port, flush=True)
for line in sys.stdin:
    command, _, number = line.partition(" ")
    if command == "spare":
        limit = len(descriptors()) + int(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    print(json.dumps(use()), flush=True)
daemon.close()
"""


class Measured(Clients):
    """A server in another process."""

    def __init__(self, **data: Any) -> None:
        options = {"user": USER, "password": PASSWORD, "data": data, **data}
        source = str(Path(dunnart.__file__).parent.parent)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SERVER, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"PYTHONPATH": source},
        )  # fmt: skip
        assert self.process.stdout is not None
        super().__init__(("127.0.0.1", int(self.process.stdout.readline())))

    async def use(self, command: str = "use") -> dict[str, Any]:
        """What it uses now."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(await asyncio.to_thread(self.process.stdout.readline))
        return found

    async def echoed(self) -> tuple[Client, Channel]:
        """A session of which a byte went to and fro."""
        client = await self.login()
        channel = await client.session()
        assert await client.ask(channel, ShellRequest())
        await self.echoes(client, channel)
        return client, channel

    async def echoes(self, client: Client, channel: Channel) -> None:
        """See that a session is alive."""
        size = channel.received + 4
        client.send(channel, b"ping")
        await client.until(lambda: channel.received == size)

    async def settled(self, connections: int, sockets: int) -> dict[str, Any]:
        """What it uses once there are so many connections and sockets, and no thread for one of them."""
        found = await self.use()
        async with asyncio.timeout(SECONDS):
            while (found["connections"], found["sockets"]) != (connections, sockets) or (
                "dunnart-connected" in found["threads"]
            ):
                await asyncio.sleep(0.02)
                found = await self.use()
        return found

    def end(self) -> None:
        """End it, and see that it has printed nothing."""
        for client in self.clients:
            client.close()
        _, errors = self.process.communicate(timeout=30)
        assert errors == ""
        assert self.process.returncode == 0


@pytest.fixture(params=[{}, {"support_stderr": True}], ids=["stdout", "stderr"])
def data(request: pytest.FixtureRequest) -> dict[str, Any]:
    options: dict[str, Any] = request.param
    return options


@pytest.fixture
def server(data: dict[str, Any]) -> Iterator[Measured]:
    made = Measured(**data)
    yield made
    made.end()


async def test_what_a_connection_uses(server: Measured, data: dict[str, Any]) -> None:
    """The figures in docs/how-to/ecos.md."""
    nothing = await server.use()
    assert nothing["threads"] == ["MainThread", "dunnart-ecos", "echo"]
    assert nothing["sockets"] == 4  # the listener, kept twice, and the pair that wakes the event loop
    each = 5 if data else 3
    for _ in range(20):
        await server.echoed()
    first = await server.settled(20, 4 + 20 * each)
    for _ in range(30):
        await server.echoed()
    second = await server.settled(50, 4 + 50 * each)
    assert second["descriptors"] - first["descriptors"] == 30 * each
    assert first["threads"] == second["threads"] == nothing["threads"]
    assert second["callback_threads"] <= 8
    assert (second["bytes"] - first["bytes"]) / 30 < 32 * 1024
    for client in server.clients:
        client.close()
    # The application does not close its sockets for stderr.
    after = await server.settled(0, 4 + 50 * (1 if data else 0))
    assert after["not_done"] == 0


@pytest.mark.parametrize("data", [{}], indirect=True)
async def test_descriptors_run_out(server: Measured) -> None:
    old = [await server.echoed() for _ in range(2)]
    await server.settled(2, 10)
    await server.use("spare 4")  # a whole connection needs three
    old.append(await server.echoed())
    halfway = await server.login()  # takes the last one
    channel = await halfway.session()
    assert not await halfway.ask(channel, ShellRequest())  # and so there is no socket for its session
    for _ in range(3):
        began = time.monotonic()
        with server.dial() as sock:
            assert await asyncio.to_thread(sock.recv, 100) == b""
        assert time.monotonic() - began < 15
    for client, channel in old:
        await server.echoes(client, channel)
    halfway.close()
    old[0][0].close()
    await server.settled(2, 10)
    old.append(await server.echoed())
    for client, channel in old[1:]:
        await server.echoes(client, channel)
