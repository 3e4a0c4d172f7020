"""FIDO security keys with OpenSSH's own programs: ssh-keygen makes the key, ssh and ssh-agent sign with it.

The token is `dunnart.testing.authenticator`; OpenSSH reaches it through a library that the test compiles.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dunnart.testing.authenticator import TOUCHED, VERIFIED, Authenticator
from dunnart.wire.encoding import Reader, byte, string, uint32
from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.support import SECONDS, Served, environment, program, ssh_agent

SOURCE = Path(__file__).with_name("security_key.c")
KINDS = {"ed25519-sk": "ED25519-SK", "ecdsa-sk": "ECDSA-SK"}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that OpenSSH loads."""
    library = tmp_path_factory.mktemp("provider") / "security_key.so"
    command = [program("cc"), "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, timeout=SECONDS)
    return str(library)


class Token:
    """A security key on the desk: makes keys, and signs with the flags that it is told to show.

    Attributes:
        path: its socket.
        flags: what its signatures say of its user; None: what the client asked for.
        asked: the flags that clients asked for when it signed.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.flags: int | None = None
        self.asked: list[int] = []
        self._keys: list[Authenticator] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(SECONDS)
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._socket.accept()
                with client:
                    client.settimeout(SECONDS)
                    client.sendall(self._answer(client))

    def _answer(self, client: socket.socket) -> bytes:
        with client.makefile("rb") as stream:
            operation, algorithm, flags = stream.read(3)
            application, handle, data = (stream.read(int.from_bytes(stream.read(4), "big")) for _ in range(3))
        if operation == ord("E"):
            self._keys.append(Authenticator("ed25519" if algorithm else "ecdsa", application))
            reader = Reader(self._keys[-1].public.blob)
            fields = [reader.string() for _ in range(2 if algorithm else 3)]
            return byte(1) + string(fields[-1]) + string(bytes([len(self._keys) - 1]))
        self.asked.append(flags)
        key = self._keys[handle[0]]
        key.flags = flags if self.flags is None else self.flags
        reader = Reader(key.sign(key.public.key_type, data))
        reader.string()
        value = reader.string()
        if not algorithm:
            numbers = Reader(value)
            return byte(1) + reader.rest() + string(numbers.string()) + string(numbers.string())
        return byte(1) + reader.rest() + string(value) + uint32(0)


@pytest.fixture
def token(tmp_path: Path) -> Iterator[Token]:
    made = Token(tmp_path / "token")
    yield made
    made.close()


class Desk:
    """Somebody with a security key and OpenSSH's programs."""

    def __init__(self, folder: Path, provider: str, token: Token) -> None:
        self.folder = folder
        self.provider = provider
        self.token = token

    @property
    def variables(self) -> dict[str, str]:
        return environment(self.folder, DUNNART_TEST_TOKEN=self.token.path, SSH_SK_PROVIDER=self.provider)

    def make_key(self, kind: str, *options: str) -> str:
        """Make a key, and give its file's name."""
        path = str(self.folder / "id_sk")
        command = [program("ssh-keygen"), "-q", "-t", kind, "-N", "", "-f", path, "-w", self.provider]
        subprocess.run([*command, *(part for each in options for part in ("-O", each))], env=self.variables,
                       check=True, capture_output=True, timeout=SECONDS)  # fmt: skip
        return path

    def authorize(self, options: str = "") -> str:
        """Write an authorized_keys file with the key, and give its name."""
        path = self.folder / "authorized"
        path.write_text(f"{options} {(self.folder / 'id_sk.pub').read_text()}".lstrip())
        return str(path)

    def log_in(self, server: Served, *options: str, agent: str = "") -> subprocess.CompletedProcess[str]:
        # The user's plain key is offered as well, and authorized nowhere.
        way = [f"IdentityAgent={agent}", "IdentitiesOnly=no"] if agent else [f"IdentityFile={self.folder / 'id_sk'}"]
        way = [part for each in (*way, f"SecurityKeyProvider={self.provider}", *options) for part in ("-o", each)]
        line, env = OpenSsh().command(server, *way)
        return subprocess.run([*line, "echo in"], env=env | self.variables, capture_output=True, text=True,
                              timeout=SECONDS, check=False)  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, provider: str, token: Token) -> Desk:
    return Desk(tmp_path, provider, token)


@pytest.mark.parametrize("kind", KINDS)
def test_a_touched_key_logs_in(start: Serve, desk: Desk, kind: str) -> None:
    desk.make_key(kind)
    server = start(authorized=desk.authorize())
    done = desk.log_in(server)
    assert done.stdout == "in\n", done.stderr
    assert desk.token.asked == [TOUCHED]
    assert server.logs(f" {KINDS[kind]} SHA256:")


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_nobody_touched_does_not(start: Serve, desk: Desk, kind: str) -> None:
    desk.make_key(kind)
    desk.token.flags = 0
    server = start(authorized=desk.authorize())
    done = desk.log_in(server)
    assert (done.returncode, done.stdout) == (255, "")
    assert "Permission denied" in done.stderr
    assert server.logs("the security key was not touched")
    assert len(desk.token.asked) == 1


def test_another_key_of_the_token_does_not(start: Serve, desk: Desk) -> None:
    desk.make_key("ed25519-sk")
    authorized = desk.authorize()
    os.unlink(desk.folder / "id_sk")
    desk.make_key("ed25519-sk")
    done = desk.log_in(start(authorized=authorized))
    assert done.returncode == 255
    assert desk.token.asked == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_agent_signs(start: Serve, desk: Desk, kind: str) -> None:
    key = desk.make_key(kind)
    server = start(authorized=desk.authorize())
    with ssh_agent(desk.folder / "agent", "-P", desk.provider, env=desk.variables) as path:
        subprocess.run([program("ssh-add"), "-q", "-S", desk.provider, key],
                       env=desk.variables | {"SSH_AUTH_SOCK": path}, check=True, timeout=SECONDS)  # fmt: skip
        done = desk.log_in(server, agent=path)
        assert done.stdout == "in\n", done.stderr
        assert desk.token.asked == [TOUCHED]


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_need_not_be_touched(start: Serve, desk: Desk, kind: str) -> None:
    desk.make_key(kind, "no-touch-required")
    done = desk.log_in(start(authorized=desk.authorize("no-touch-required")))
    assert done.stdout == "in\n", done.stderr
    assert desk.token.asked == [0]


@pytest.mark.parametrize(("shown", "status"), [(TOUCHED, 255), (TOUCHED | VERIFIED, 0)])
def test_a_key_that_must_verify_its_user(start: Serve, desk: Desk, shown: int, status: int) -> None:
    desk.make_key("ed25519-sk")
    desk.token.flags = shown
    server = start(authorized=desk.authorize("verify-required"))
    assert desk.log_in(server).returncode == status
    said = "the security key did not verify its user"
    assert server.logs(said) if status else said not in server.log
