"""Our client against other servers: OpenSSH's sshd, Dropbear, asyncssh, and `dunnart serve`; with a real ssh-agent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from dunnart.client import (
    CLIENT_LIMITS,
    Agent,
    Connection,
    Exit,
    Terminal,
    TrustAnyHostKey,
    UnknownHost,
    connect,
)
from dunnart.daemon.ways_in import this_user
from dunnart.errors import AgentError, AuthenticationFailed, ChannelError, ConnectionClosed, HostKeyError
from dunnart.keys import KnownHosts, PrivateKey, PublicKey
from tests.interop.peers import SERVERS, Peer, Peers, sshd, stop
from tests.interop.support import (
    KEY_KINDS,
    MIB,
    SECONDS,
    Blob,
    Keys,
    program,
    ssh_agent,
    write_key,
)


@pytest.fixture(params=SERVERS)
def peer(request: pytest.FixtureRequest, peers: Peers) -> Peer:
    """Each kind of server."""
    return peers[request.param]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine; what is reported to its loop fails the test."""
    reported: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        await asyncio.wait_for(test(), SECONDS)

    asyncio.run(main())
    assert reported == []


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_logins_by_each_kind_of_key(peer: Peer, keys: Keys, kind: str) -> None:
    async def test() -> None:
        async with peer.connect(keys.path(kind)) as connection:
            done = await connection.run("echo out; echo err >&2; exit 5")
            assert (done.stdout, done.stderr, done.status) == (b"out\n", b"err\n", 5)

    run(test)


def test_64_mib_each_way(peer: Peer, keys: Keys, blob: Blob) -> None:
    async def test() -> None:
        async with peer.connect(keys.path("ed25519")) as connection:
            assert (await connection.run("sha256sum", blob.data)).stdout[:64].decode() == blob.sha256
            down = await connection.run(f"cat '{blob.path}'")
            assert hashlib.sha256(down.stdout).hexdigest() == blob.sha256

    run(test)


@pytest.mark.parametrize("limit", ["bytes", "packets"])
def test_keys_are_exchanged_over_and_over_during_bulk(peer: Peer, keys: Keys, blob: Blob, limit: str) -> None:
    limits = replace(CLIENT_LIMITS, **{f"rekey_{limit}": 2 * MIB if limit == "bytes" else 100})

    async def test() -> None:
        async with peer.connect(keys.path("ed25519"), limits=limits) as connection:
            both = await connection.run("cat", blob.data[: 16 * MIB])
            assert hashlib.sha256(both.stdout).digest() == hashlib.sha256(blob.data[: 16 * MIB]).digest()
            assert connection.pump.engine.rekeys >= 5

    run(test)


def test_ends_of_programs(peer: Peer, keys: Keys) -> None:
    async def test() -> None:
        async with peer.connect(keys.path("ed25519")) as connection:
            assert (await connection.run("exit 0")).exit == Exit(0)
            assert (await connection.run("kill -TERM $$")).exit.signal == "TERM"
            async with await connection.session("cat; echo end") as session:
                await session.write(b"half ")
                await session.write_eof()
                assert await session.read_all() == b"half end\n"
                assert (await session.wait()).status == 0
            done = await connection.run("exec <&-; echo deaf", bytes(4 * MIB))
            assert done.stdout == b"deaf\n"

    run(test)


def test_a_terminal_and_a_shell(peer: Peer, keys: Keys) -> None:
    async def test() -> None:
        async with peer.connect(keys.path("ed25519")) as connection:
            done = await connection.session("stty size", terminal=Terminal("xterm", 91, 17))
            assert (await done.read_all()).split() == [b"17", b"91"]
            await done.wait()  # Dropbear closes a channel that is opened just when another one's program has ended
            shell = await connection.session(terminal=Terminal("dumb"))
            await shell.write(b"echo $((6*7))$TERM; exit 3\n")
            assert b"42dumb" in await shell.read_all()
            assert (await shell.wait()).status == 3

    run(test)


def test_sessions_at_once_and_a_subsystem_that_is_not_there(peer: Peer, keys: Keys) -> None:
    async def test() -> None:
        async with peer.connect(keys.path("ed25519")) as connection:
            done = await asyncio.gather(*(connection.run(f"cat; exit {n}", bytes(100_000)) for n in range(6)))
            assert [(len(each.stdout), each.status) for each in done] == [(100_000, n) for n in range(6)]
            with pytest.raises(ChannelError, match="refuses the subsystem 'nothing'"):
                await connection.session(subsystem="nothing")

    run(test)


def test_a_key_that_is_not_let_in(peer: Peer, tmp_path: Path) -> None:
    write_key(tmp_path / "other", "ed25519")

    async def test() -> None:
        with pytest.raises(AuthenticationFailed) as caught:
            await peer.connect(str(tmp_path / "other"))
        assert "Tried: publickey ssh-ed25519 SHA256:" in str(caught.value)
        assert "publickey" in caught.value.methods

    run(test)


def test_a_host_key_that_is_another(peer: Peer, keys: Keys, tmp_path: Path) -> None:
    other = PrivateKey.generate("ed25519").public
    file = tmp_path / "known_hosts"
    file.write_text(f"\n[127.0.0.1]:{peer.port} {other.line()}\n")

    async def test() -> None:
        with pytest.raises(HostKeyError, match=rf"known_hosts:2 .*{re.escape(other.fingerprint())}"):
            await peer.connect(keys.path("ed25519"), known_hosts=file)

    run(test)


def test_known_hosts_that_ssh_keygen_has_hashed(peer: Peer, keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"[127.0.0.1]:{peer.port} {peer.host_key.line()}\n")
    subprocess.run([program("ssh-keygen"), "-H", "-f", str(file)], check=True, capture_output=True, timeout=SECONDS)
    assert "127.0.0.1" not in file.read_text()

    async def test() -> None:
        async with peer.connect(keys.path("ed25519"), known_hosts=file) as connection:
            assert not connection.closed

    run(test)


def test_what_we_remember_is_known_to_ssh_keygen(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    for hashed in (True, False):
        UnknownHost("host.example", 2222, PrivateKey.generate("ed25519").public).remember(file, hashed=hashed)
    command = [program("ssh-keygen"), "-F", "[host.example]:2222", "-f", str(file)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    assert found.stdout.count("ssh-ed25519") == 2


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_is_killed(kind: str, keys: Keys, tmp_path: Path) -> None:
    """Whatever waits is told; the process that serves the connection dies without a word."""

    async def test() -> None:
        connection = await started.connect(keys.path("ed25519"))
        session = await connection.session("echo x; exec sleep 30")
        assert await session.read() == b"x\n"
        waiting = [
            asyncio.ensure_future(each)
            for each in (session.read(), session.wait(), session.stderr.read(), session.write(bytes(64 * MIB)))
        ]
        await asyncio.sleep(0)
        for pid in serving_processes(started.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in found] == [ConnectionClosed] * 4
        await connection.close()

    started = SERVERS[kind](tmp_path, keys)
    try:
        run(test)
    finally:
        stop(started, gently=False)


def serving_processes(pid: int) -> list[int]:
    """A server and what it has forked for connections, but not the programs that they run."""
    found = [pid]
    for each in found:
        children = Path(f"/proc/{each}/task/{each}/children")
        with contextlib.suppress(OSError):
            found += [int(child) for child in children.read_text().split() if is_server(int(child))]
    return found


def is_server(pid: int) -> bool:
    """Whether a process is one of sshd's or Dropbear's."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() in {"sshd", "sshd-session", "sshd-auth", "dropbear"}
    return False


# Certificates, which OpenSSH's server knows.


def certify(authority: Path, key: Path, *options: str) -> Path:
    """Make a certificate beside a key's .pub file."""
    command = [program("ssh-keygen"), "-q", "-s", str(authority), "-I", "an id", *options, str(key.with_suffix(".pub"))]
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    return key.with_name(f"{key.name}-cert.pub")


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A key that signs certificates."""
    write_key(tmp_path / "authority", "ed25519")
    return tmp_path / "authority"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa256", "rsa"])
@pytest.mark.parametrize("way", ["file", "locked file", "agent"])
def test_a_users_certificate(authority: Path, tmp_path: Path, keys: Keys, agent: str, kind: str, way: str) -> None:
    user = this_user().name
    mine = tmp_path / "mine"
    write_key(mine, kind)
    certify(authority, mine, "-n", user)
    peer = sshd(tmp_path, keys, f"TrustedUserCAKeys {authority}.pub")

    async def test() -> None:
        options: dict[str, Any] = {"keys": [], "agent": agent} if way == "agent" else {"passphrase": "opens"}
        async with peer.connect(str(mine), **options) as connection:
            assert (await connection.run("echo in")).stdout == b"in\n"

    if way == "locked file":
        subprocess.run([program("ssh-keygen"), "-q", "-p", "-P", "", "-N", "opens", "-f", str(mine)], check=True,
                       capture_output=True, timeout=SECONDS)  # fmt: skip
    if way == "agent":
        add(agent, str(mine))
    try:
        run(test)
    finally:
        stop(peer)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-h", "-n", "127.0.0.1"), ""),
        (("-h", "-n", "other.example"), "it is for other.example"),
        (("-h",), "it is for nobody"),
        (("-h", "-n", "127.0.0.1", "-V", "20200101:20210101"), "it is not valid at this time"),
    ],
)
def test_a_hosts_certificate(
    authority: Path, tmp_path: Path, keys: Keys, options: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "peer").mkdir()
    host = tmp_path / "peer" / "host"
    write_key(host, "ed25519")
    certificate = certify(authority, host, *options)
    peer = sshd(tmp_path / "peer", keys, f"HostCertificate {certificate}", host=host)
    known = KnownHosts(f"@cert-authority 127.0.0.* {authority.with_suffix('.pub').read_text()}")
    line = authority.with_suffix(".pub").read_text()
    revoked = KnownHosts(f"@cert-authority 127.0.0.* {line}@revoked * {peer.host_key.line()}\n")
    other = KnownHosts(f"@cert-authority * {PrivateKey.generate('ed25519').public.line()}\n127.0.0.1 "
                       f"{peer.host_key.line()}\n")  # fmt: skip

    async def test() -> None:
        if reason:
            with pytest.raises(HostKeyError, match=f"cannot be used: {reason}"):
                await peer.connect(keys.path("ed25519"), known_hosts=known)
            return
        for good in (known, other):  # the authority, or the key itself
            async with peer.connect(keys.path("ed25519"), known_hosts=good) as connection:
                assert not connection.closed
        with pytest.raises(HostKeyError, match="@revoked"):
            await peer.connect(keys.path("ed25519"), known_hosts=revoked)

    try:
        run(test)
    finally:
        stop(peer)


# A real agent.


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """A real ssh-agent's socket."""
    with ssh_agent(tmp_path / "agent") as path:
        yield path


def add(agent: str, *arguments: str) -> None:
    """Give the agent a key, or another order."""
    env = {**os.environ, "SSH_AUTH_SOCK": agent}
    subprocess.run([program("ssh-add"), *arguments], env=env, check=True, capture_output=True, timeout=SECONDS)


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_real_agent_signs(agent: str, keys: Keys, kind: str) -> None:
    add(agent, keys.path(kind))

    async def test() -> None:
        async with await Agent.connect(agent) as real:
            (held,) = await real.identities()
            assert isinstance(held.key, PublicKey)
            for algorithm in held.key.signature_algorithms:
                signature = await real.sign(held.key, algorithm, b"data")
                assert held.key.verify(algorithm, signature, b"data") is None
            add(agent, "-D")
            assert await real.identities() == ()
            with pytest.raises(AgentError, match="refused to sign"):
                await real.sign(held.key, held.key.signature_algorithms[0], b"data")

    run(test)


def test_a_login_by_a_real_agent(agent: str, peer: Peer, keys: Keys, tmp_path: Path) -> None:
    write_key(tmp_path / "other", "ed25519")
    add(agent, str(tmp_path / "other"), keys.path("rsa"))

    async def test() -> None:
        async with peer.connect("unused", keys=[], agent=agent) as connection:
            assert (await connection.run("echo in")).stdout == b"in\n"

    run(test)


# asyncssh has passwords and questions without an account.


class _Asyncssh(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("alice", "secret")

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "Name", "Instruction", "", [("One: ", False), ("Two: ", True)]

    def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        return list(responses) == ["1", "2"]


@asynccontextmanager
async def asyncssh_server() -> AsyncIterator[int]:
    """Asyncssh's server, which echoes."""

    async def echo(process: asyncssh.SSHServerProcess[bytes]) -> None:
        while data := await process.stdin.read(1 << 16):
            process.stdout.write(data)
            await process.stdout.drain()
        process.exit(4)

    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=_Asyncssh, server_host_keys=[key],
                                   process_factory=echo, encoding=None)  # fmt: skip
    async with server:
        yield server.sockets[0].getsockname()[1]


def test_passwords_and_questions_at_asyncssh() -> None:
    async def prompt(found: Any) -> tuple[str, ...]:
        assert (found.name, found.instruction) == ("Name", "Instruction")
        return ("1", "2")

    async def test() -> None:
        async with asyncssh_server() as port:
            options: dict[str, Any] = {"user": "alice", "keys": [], "agent": False, "known_hosts": TrustAnyHostKey()}
            for way in ({"password": "secret"}, {"prompt": prompt}):
                connection: Connection
                async with connect("127.0.0.1", port, **options, **way) as connection:
                    done = await connection.run("any", bytes(3 * MIB))
                    assert (len(done.stdout), done.status) == (3 * MIB, 4)
            with pytest.raises(AuthenticationFailed, match=r"keyboard-interactive.*password"):
                await connect("127.0.0.1", port, **options, password="wrong")

    run(test)
