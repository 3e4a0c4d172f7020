"""Every algorithm, negotiated once with a real client: OpenSSH where it has it, else asyncssh."""

from __future__ import annotations

import asyncio
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dunnart.crypto.profiles import KNOWN
from tests.interop.clients import AsyncSsh, OpenSsh
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Keys, Served, program, serve

CHUNK = 300_000
"""Enough for several packets, and for a cipher whose state goes wrong after the first to be noticed."""
HOST_KEYS = {
    "ssh-ed25519": "ed25519", "rsa-sha2-512": "rsa", "rsa-sha2-256": "rsa", "ssh-rsa": "rsa", "ssh-dss": "dsa",
    "ecdsa-sha2-nistp256": "ecdsa256", "ecdsa-sha2-nistp384": "ecdsa384", "ecdsa-sha2-nistp521": "ecdsa521",
}  # fmt: skip
# What each kind of list is called by `ssh -Q`, by ssh's options, and by asyncssh.
QUERIES = {"kex": "kex", "ciphers": "cipher", "macs": "mac", "compression": "compression", "host_key": "key-sig"}
OPTIONS = {"kex": "KexAlgorithms", "ciphers": "Ciphers", "macs": "MACs", "host_key": "HostKeyAlgorithms"}
ASYNCSSH = {
    "kex": "kex_algs", "ciphers": "encryption_algs", "macs": "mac_algs", "compression": "compression_algs",
    "host_key": "server_host_key_algs",
}  # fmt: skip


def _cases() -> Iterator[tuple[str, str]]:
    for kind in QUERIES:
        # Certificates of hosts are not configurable; users' are refused so far.
        yield from ((kind, name) for name in getattr(KNOWN, kind) if "-cert-" not in name)


@functools.cache
def _known_to_openssh(query: str) -> frozenset[str]:
    done = subprocess.run([program("ssh"), "-Q", query], capture_output=True, text=True, check=True, timeout=SECONDS)
    return frozenset(done.stdout.split())


@pytest.fixture(scope="session")
def everything(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the legacy profile, which offers all there is, and a host key of each type."""
    folder = tmp_path_factory.mktemp("legacy")
    flags = ["--profile", "legacy"]
    for kind in sorted(set(HOST_KEYS.values())):
        flags += ["--host-key", str(_host_key(folder, keys, kind))]
    running = serve(folder, keys, *flags)
    yield running
    running.stop()


def _host_key(folder: Path, keys: Keys, kind: str) -> Path:
    path = folder / f"host_{kind}"
    path.touch(0o600)
    path.write_bytes(_dsa_key() if kind == "dsa" else Path(keys.path(kind)).read_bytes())
    return path


def _dsa_key() -> bytes:
    import warnings

    from cryptography.hazmat.primitives.asymmetric import dsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is old is why it is here
        key = dsa.generate_private_key(1024)
        return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


@pytest.mark.parametrize(("kind", "name"), list(_cases()))
def test_negotiated(everything: Served, kind: str, name: str) -> None:
    if name in _known_to_openssh(QUERIES[kind]) and (kind, name) != ("compression", "zlib"):
        _by_openssh(everything, kind, name)
    else:
        _by_asyncssh(everything, kind, name)


def _by_openssh(server: Served, kind: str, name: str) -> None:
    if kind == "compression":
        options = ["-o", f"Compression={'no' if name == 'none' else 'yes'}"]
    else:
        options = ["-o", f"{OPTIONS[kind]}={name}"]
    if kind == "macs":  # AEAD ciphers have none
        options += ["-o", "Ciphers=aes128-ctr"]
    options += ["-o", "LogLevel=DEBUG1"]
    # Known by one of its keys' names; the fingerprint is checked below, against what the server printed.
    options += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={server.folder}/none"]
    line, env = OpenSsh().command(server, *options)
    sent = bytes(range(256)) * (CHUNK // 256)
    done = subprocess.run([*line, "cat"], env=env, input=sent, capture_output=True, timeout=SECONDS, check=False)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert done.stdout == sent
    agreed = dict(re.findall(r"kex: (algorithm|host key algorithm): (\S+)", said))
    streams = re.findall(r"kex: (?:server->client|client->server) cipher: (\S+) MAC: (\S+) compression: (\S+)", said)
    assert len(streams) == 2
    shown = re.search(r"Server host key: (\S+) (\S+)", said)
    assert shown is not None
    assert server.host_keys[shown[1]] == shown[2]
    if kind == "kex":
        assert agreed["algorithm"] == name
    elif kind == "host_key":
        assert agreed["host key algorithm"] == name
    else:
        assert {stream[("ciphers", "macs", "compression").index(kind)] for stream in streams} == {name}


def _by_asyncssh(server: Served, kind: str, name: str) -> None:
    options: dict[str, Any] = {ASYNCSSH[kind]: [name]}
    if kind == "macs":
        options["encryption_algs"] = ["aes128-ctr"]
    sent = bytes(range(256)) * (CHUNK // 256)

    async def work() -> None:
        async with AsyncSsh().connect(server, **options) as connection:
            done = await connection.run("cat", input=sent, encoding=None, check=True, timeout=SECONDS)
            assert done.stdout == sent
            info = {"ciphers": "send_cipher", "macs": "send_mac", "compression": "send_compression"}
            if kind in info:
                for direction in ("send", "recv"):
                    assert connection.get_extra_info(info[kind].replace("send", direction)) == name
        # asyncssh does not tell the rest, but offered nothing else.

    asyncio.run(work())


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        ("ed25519", "ssh-ed25519"),
        ("ecdsa256", "ecdsa-sha2-nistp256"),
        ("ecdsa384", "ecdsa-sha2-nistp384"),
        ("ecdsa521", "ecdsa-sha2-nistp521"),
        ("rsa", "rsa-sha2-256"),
        ("rsa", "rsa-sha2-512"),
    ],
)
def test_user_key(server: Served, key: str, algorithm: str) -> None:
    options = ("-o", f"PubkeyAcceptedAlgorithms={algorithm}", "-o", "LogLevel=DEBUG3")
    line, env = OpenSsh().command(server, *options, key=key)
    done = subprocess.run([*line, "exit 3"], env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 3, done.stderr
    assert f"signing using {algorithm} " in done.stderr


def test_a_sha1_signature_lets_nobody_in_by_default(server: Served, everything: Served) -> None:
    options = ("-o", "PubkeyAcceptedAlgorithms=ssh-rsa", "-o", "StrictHostKeyChecking=no")
    for each, status in ((server, 255), (everything, 3)):
        line, env = OpenSsh().command(each, *options, key="rsa")
        done = subprocess.run([*line, "exit 3"], env=env, capture_output=True, timeout=SECONDS, check=False)
        assert done.returncode == status


@pytest.mark.parametrize(
    ("profile", "key_type", "client_options"),
    [
        ("strict", "ed25519", {"kex_algs": ["mlkem768x25519-sha256"]}),
        ("fips", "ecdsa", {"kex_algs": ["ecdh-sha2-nistp256"], "encryption_algs": ["aes256-gcm@openssh.com"]}),
    ],
)
def test_profiles_keep_what_is_not_theirs_out(
    start: Serve, profile: str, key_type: str, client_options: dict[str, list[str]]
) -> None:
    import asyncssh

    server = start("--profile", profile, "--host-key-types", key_type)

    async def log_in(**options: list[str]) -> int | None:
        key = "ecdsa256" if profile == "fips" else "ed25519"
        async with AsyncSsh().connect(server, key=key, **options) as connection:
            status: int | None = (await connection.run("exit 3")).returncode
            return status

    assert asyncio.run(log_in(**client_options)) == 3
    with pytest.raises(asyncssh.KeyExchangeFailed):
        asyncio.run(log_in(kex_algs=["diffie-hellman-group14-sha1"]))
