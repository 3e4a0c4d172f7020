"""What editors and Docker do with SSH: a script on stdin starts a server that tunnels lead to; commands are streams."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import os
import random
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.interop.support import SECONDS, Served, environment, eventually, free_port, program, started
from tests.interop.tools import HOST, ssh_config

# A server of the kind that an editor installs: it echoes what it is sent, and says where it listens.
ECHO = """\
import socket, sys, threading
if sys.argv[1:]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(64)
    print(sys.argv[1], flush=True)
else:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
def echo(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
while True:
    threading.Thread(target=echo, args=listener.accept()[:1], daemon=True).start()
"""
# The script that goes to the shell's stdin: it unpacks, starts what stays, tells, and waits for the client to leave.
BOOTSTRAP = """\
set -e
folder=$(mktemp -d "$HOME/editor.XXXXXX")
cat > "$folder/server.py" <<'END'
{server}END
nohup {python} "$folder/server.py" {argument} > "$folder/port" 2> "$folder/log" < /dev/null &
server=$!
trap 'kill $server; rm -r "$folder"' EXIT
until [ -s "$folder/port" ]; do sleep 0.05; done
echo "started: listeningOn==$(cat "$folder/port")== with \\"$SHELL\\""
echo waiting >&2
read -r nothing || true
"""
CHANNELS = 48


def is_running(word: str) -> bool:
    """Whether there is a process with `word` in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if word.encode() in path.read_bytes():
                return True
    return False


def through(proxy: int, port: int) -> socket.socket:
    """Connect by SOCKS version 5 (RFC 1928), as editors do."""
    sock = socket.create_connection(("127.0.0.1", proxy), SECONDS)
    sock.settimeout(SECONDS)
    sock.sendall(b"\x05\x01\x00")
    assert sock.recv(2, socket.MSG_WAITALL) == b"\x05\x00"
    sock.sendall(b"\x05\x01\x00\x03\x09localhost" + struct.pack(">H", port))
    answer = sock.recv(10, socket.MSG_WAITALL)
    if answer[:2] != b"\x05\x00":
        sock.close()
        raise ConnectionRefusedError(answer)
    return sock


def send_all(sock: socket.socket, data: bytes) -> None:
    """Send, and end."""
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def echoed(sock: socket.socket, data: bytes) -> str:
    """Send all and end; gives the digest of what comes back."""
    sender = threading.Thread(target=send_all, args=(sock, data))
    sender.start()
    found = hashlib.sha256()
    while piece := sock.recv(65536):
        found.update(piece)
    sender.join()
    sock.close()
    return found.hexdigest()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_editors_server_and_many_tunnels_to_it(files: Served, kind: str) -> None:
    proxy, here, there = free_port(), files.folder / "editor", files.home / "editor"
    tunnels = ["-D", f"127.0.0.1:{proxy}"] if kind == "tcp" else ["-L", f"{here}:{there}"]
    ssh = [program("ssh"), "-F", str(ssh_config(files)), "-T", *tunnels, "-o", "ExitOnForwardFailure=yes", HOST, "bash"]

    def connect() -> socket.socket:
        if kind == "tcp":
            return through(proxy, int(listens))
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(str(here))
        return sock

    with started(ssh, environment(files.folder)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        argument = f'"{there}"' if kind == "unix" else ""
        process.stdin.write(BOOTSTRAP.format(server=ECHO, python=sys.executable, argument=argument).encode())
        process.stdin.flush()
        said = process.stdout.readline().decode()
        listens = said.split("==")[1]

        # One that nobody reads from fills up; the others go on.
        stuck = connect()
        stuck.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while stuck.send(bytes(1 << 20)):
                pass
        source = random.Random(1)
        data = [source.randbytes(source.choice((1, 1000, 100_000, 400_000))) for _ in range(CHANNELS)]
        with ThreadPoolExecutor(CHANNELS) as pool:
            found = list(pool.map(lambda piece: echoed(connect(), piece), data))
        assert found == [hashlib.sha256(piece).hexdigest() for piece in data]
        stuck.close()

        if kind == "tcp":
            refused = free_port()
            with pytest.raises(ConnectionRefusedError):
                through(proxy, refused)

        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(SECONDS) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b"waiting\n"
    assert not list(files.home.glob("editor.*"))
    assert eventually(lambda: not is_running(f"{files.home}/editor."))


# Docker: `ssh HOST docker system dial-stdio` joins stdin and stdout with the daemon's socket, once for each connection.
DIAL = """\
import os, socket, sys, threading
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
def send():
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := sock.recv(65536):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
"""


class Daemon(http.server.BaseHTTPRequestHandler):
    """Answers as Docker's daemon does: several requests on a connection, large bodies, and streams in their place."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b'{"ApiVersion": "1.43"}')

    def do_POST(self) -> None:
        if self.headers.get("Upgrade") == "tcp":
            self.connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            found = hashlib.sha256()
            while piece := self.rfile.read1(65536):
                found.update(piece)
                self.connection.sendall(piece)
            self.connection.sendall(b"ended " + found.hexdigest().encode())
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(hashlib.sha256(body).hexdigest().encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    class Listening(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        request_queue_size = 64

        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            return self.socket.accept()[0], ("", 0)

    # Paths of sockets are short.
    here = os.open(tmp_path, os.O_PATH)
    path = f"/proc/self/fd/{here}/s"
    with Listening(path, Daemon) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        yield str(tmp_path / "s")
        listening.shutdown()
        thread.join()
    os.close(here)


@contextlib.contextmanager
def dialled(server: Served, path: str, script: Path) -> Iterator[tuple[http.client.HTTPConnection, socket.socket]]:
    """Connect as Docker's client does."""
    ours, theirs = socket.socketpair()
    ours.settimeout(SECONDS)
    remote = f"cd {Path(path).parent} && exec {sys.executable} {script} s"  # paths of sockets are short
    command = [program("ssh"), "-F", str(ssh_config(server)), "-T", "--", HOST, remote]
    with ours, theirs:
        end = theirs.fileno()
        process = subprocess.Popen(command, stdin=end, stdout=end, env=environment(server.folder))
        theirs.close()
        try:
            connection = http.client.HTTPConnection("docker")
            connection.sock = ours
            yield connection, ours
            connection.close()
            ours.close()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
            process.wait()


def test_dockers_streams(files: Served, tmp_path: Path, daemon: str) -> None:
    script = tmp_path / "dial.py"
    script.write_text(DIAL)
    body = random.Random(2).randbytes(700_000)

    def use(number: int) -> None:
        with dialled(files, daemon, script) as (connection, sock):
            for _ in range(3):
                connection.request("GET", "/version")
                assert connection.getresponse().read() == b'{"ApiVersion": "1.43"}'
            connection.request("POST", "/images/load", body[number:])
            assert connection.getresponse().read().decode() == hashlib.sha256(body[number:]).hexdigest()
            # The connection becomes a stream, whose one half ends before the other.
            connection.putrequest("POST", "/containers/x/attach")
            for name, value in (("Upgrade", "tcp"), ("Connection", "Upgrade")):
                connection.putheader(name, value)
            connection.endheaders()
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += sock.recv(1)
            assert head.startswith(b"HTTP/1.1 101 ")
            sender = threading.Thread(target=send_all, args=(sock, body))
            sender.start()
            back = b""
            while piece := sock.recv(65536):
                back += piece
            sender.join()
            assert back == body + b"ended " + hashlib.sha256(body).hexdigest().encode()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert eventually(lambda: not is_running(str(script)))
