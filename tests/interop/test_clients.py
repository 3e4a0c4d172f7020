"""The same things done by every client."""

from __future__ import annotations

import hashlib
import re

import pytest

from tests.interop.clients import CLIENTS, COLUMNS, ROWS, TYPE, Client
from tests.interop.support import KEY_KINDS, Blob, Served


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return CLIENTS[request.param]


@pytest.mark.parametrize("key", [*KEY_KINDS, None], ids=[*KEY_KINDS, "password"])
def test_login_and_exit_status(client: Client, server: Served, key: str | None) -> None:
    done = client.run(server, "echo here; echo there >&2; exit 7", key=key)
    assert (done.status, done.out) == (7, b"here\n")
    assert b"there\n" in done.err


def test_a_command_reads_its_input_to_the_end(client: Client, server: Served) -> None:
    done = client.run(server, "cat; echo done", b"one\0two\xff\n")
    assert (done.status, done.out) == (0, b"one\0two\xff\ndone\n")


def test_a_terminal(client: Client, server: Served) -> None:
    done = client.run_on_terminal(server, 'tty; stty size; echo "TERM=$TERM"; test "$(tty)" = "$SSH_TTY"; exit $?')
    lines = done.out.decode().split("\r\n")
    assert done.status == 0
    assert any(re.fullmatch(r"/dev/(pts/|tty)\w+", line) for line in lines)
    assert (f"{ROWS} {COLUMNS}" if client.sends_size else "24 80") in lines
    assert f"TERM={TYPE if client.sends_type else 'xterm'}" in lines


def test_bulk_down(client: Client, server: Served, blob: Blob) -> None:
    done = client.run(server, f"cat '{blob.path}'")
    assert done.status == 0
    assert len(done.out) == len(blob.data)
    assert hashlib.sha256(done.out).hexdigest() == blob.sha256


def test_bulk_up(client: Client, server: Served, blob: Blob) -> None:
    done = client.run(server, "sha256sum; wc -c", blob.data)
    assert done.status == 0
    assert done.out.decode().split() == [blob.sha256, "-", "0"]


def test_an_exit_status_that_comes_long_after_the_output_ended(client: Client, server: Served) -> None:
    """Dropbear, PuTTY and libssh2 answer the output's EOF with CLOSE."""
    done = client.run(server, "echo out; exec >&- 2>&- <&-; sleep 1.5; exit 9")
    assert (done.status, done.out) == (9, b"out\n")
