"""Keys exchanged anew, over and over, while data flows: not a byte is lost, whoever begins."""

from __future__ import annotations

import hashlib
import subprocess

import pytest

from tests.interop.clients import CLIENTS, OpenSsh
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Blob, Served


def ssh(server: Served, command: str, stdin: bytes, *options: str) -> tuple[bytes, int]:
    """Run a command; give its output, and how many key exchanges there were after the first."""
    line, env = OpenSsh().command(server, "-o", "LogLevel=DEBUG1", *options)
    done = subprocess.run([*line, command], env=env, input=stdin, capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout, done.stderr.count(b"SSH2_MSG_NEWKEYS received") - 1


CIPHERS = ("chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr")


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("direction", ["down", "up", "both"])
def test_a_storm_by_the_client(server: Served, blob: Blob, cipher: str, direction: str) -> None:
    command = {"down": f"cat '{blob.path}'", "up": "sha256sum", "both": "cat"}[direction]
    stdin = b"" if direction == "down" else blob.data
    out, times = ssh(server, command, stdin, "-o", "RekeyLimit=1M", "-o", f"Ciphers={cipher}")
    assert times >= 20
    assert (out[:64].decode() if direction == "up" else hashlib.sha256(out).hexdigest()) == blob.sha256


@pytest.mark.parametrize(
    ("limits", "least"),
    [
        (("rekey_bytes=2000000",), 10),
        (("rekey_packets=100",), 10),
        (("rekey_seconds=0.5", "rekey_bytes=0"), 1),
        (("rekey_bytes=2000000", "rekey_packets=100", "rekey_seconds=1"), 10),
    ],
)
@pytest.mark.parametrize("direction", ["down", "up", "both"])
def test_a_storm_by_the_server(start: Serve, blob: Blob, limits: tuple[str, ...], least: int, direction: str) -> None:
    server = start(*(word for limit in limits for word in ("--limits", limit)))
    # What goes by time needs some: the pause lies between two halves of the data.
    pause = "sleep 1.5; " if "rekey_bytes=0" in limits else ""
    half = len(blob.data) // 2
    command = {
        "down": f"head -c {half} '{blob.path}'; {pause}tail -c {half} '{blob.path}'",
        "up": f"{pause}sha256sum",
        "both": f"head -c 1000000; {pause}cat",
    }[direction]
    out, times = ssh(server, command, b"" if direction == "down" else blob.data)
    assert times >= least
    assert (out[:64].decode() if direction == "up" else hashlib.sha256(out).hexdigest()) == blob.sha256


def test_a_storm_by_both(start: Serve, blob: Blob) -> None:
    server = start("--limits", "rekey_bytes=1500000")
    out, times = ssh(server, "cat", blob.data, "-o", "RekeyLimit=1M")
    assert times >= 40
    assert hashlib.sha256(out).hexdigest() == blob.sha256


@pytest.mark.parametrize("name", [name for name in CLIENTS if name != "openssh"])
def test_every_client_goes_through_the_servers_storm(start: Serve, blob: Blob, name: str) -> None:
    server = start("--limits", "rekey_bytes=2000000", "--password", "one-time")
    size = 16 << 20
    digest = hashlib.sha256(blob.data[:size]).hexdigest()
    up = CLIENTS[name].run(server, "sha256sum", blob.data[:size])
    assert (up.status, up.out[:64].decode()) == (0, digest)
    down = CLIENTS[name].run(server, f"head -c {size} '{blob.path}'")
    assert (down.status, hashlib.sha256(down.out).hexdigest()) == (0, digest)
    assert server.logs("keys exchanged by", 8)
