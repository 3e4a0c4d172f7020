"""The key sources that ask a web server, or a database."""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dunnart.errors import ConfigError
from dunnart.keys import PrivateKey
from dunnart.plugins.http_keys import HttpKeys
from dunnart.plugins.http_keys import Options as HttpOptions
from dunnart.plugins.key_sources import KeySources
from dunnart.plugins.looking_up import LookingUp
from dunnart.plugins.sql_keys import Options as SqlOptions
from dunnart.plugins.sql_keys import SqlKeys
from dunnart.server import Allow, Attempt, Context, Deny, PublicKeyCredential, Rights

KEY = PrivateKey.generate("ed25519").public
LOG = logging.getLogger("test")


async def answers(source: Any, key: object = KEY) -> object:
    credential = PublicKeyCredential(key, "ssh-ed25519", signed=True)  # type: ignore[arg-type]
    return await KeySources({"it": source}).authenticate(Attempt("ann", credential, "192.0.2.1"))


class Pages(BaseHTTPRequestHandler):
    """A web server's pages; `asked` are the paths that were."""

    pages: dict[str, tuple[int, bytes]]
    asked: list[str]
    hang: threading.Event

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/dripping/"):
            self.send_response(200)
            self.end_headers()
            try:
                while not self.hang.wait(0.05):
                    self.wfile.write(b"#")
            except OSError:
                pass
            return
        status, body = self.pages.get(self.path, (404, b"nothing"))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/ann.keys")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@pytest.fixture
def pages() -> type[Pages]:
    class Mine(Pages):
        pages = {"/ann.keys": (200, f"# keys\nno-pty {KEY.line()}\n".encode())}  # noqa: RUF012
        asked: list[str] = []  # noqa: RUF012
        hang = threading.Event()

    return Mine


@pytest.fixture
def server(pages: type[Pages]) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    pages.hang.set()
    server.shutdown()
    server.server_close()
    thread.join()


def http(server: ThreadingHTTPServer, path: str = "/%u.keys", scheme: str = "http", **options: Any) -> HttpKeys:
    url = f"{scheme}://127.0.0.1:{server.server_port}{path}"
    return HttpKeys(Context("http", HttpOptions(url, **options), LOG, "info"))


async def test_a_page_has_lines_whose_options_are_obeyed(server: ThreadingHTTPServer, pages: type[Pages]) -> None:
    source = http(server)
    assert await answers(source) == Allow(None, Rights(pty=False))
    assert isinstance(await answers(source, PrivateKey.generate("ed25519").public), Deny)
    assert pages.asked == ["/ann.keys"]  # the second time it was remembered
    await source.keys("../a b?é", "")
    assert pages.asked[1:] == ["/..%2Fa%20b%3F%C3%A9.keys"]


async def test_an_answer_is_kept_only_so_long(server: ThreadingHTTPServer, pages: type[Pages]) -> None:
    source = http(server, cache_seconds=0.0)
    assert list(await source.keys("ann", ""))
    pages.pages["/ann.keys"] = (404, b"")
    assert list(await source.keys("ann", "")) == []
    pages.pages["/ann.keys"] = (500, b"")
    with pytest.raises(OSError, match="500"):
        await source.keys("ann", "")
    pages.pages["/ann.keys"] = (302, b"")
    with pytest.raises(OSError, match="302"):
        await source.keys("ann", "")


async def test_answers_that_are_too_long_or_never_end(server: ThreadingHTTPServer, pages: type[Pages]) -> None:
    with pytest.raises(OSError, match="longer than 10"):
        await http(server, largest_bytes=10).keys("ann", "")
    began = time.monotonic()
    with pytest.raises((OSError, TimeoutError)):
        await http(server, "/dripping/%u", seconds=0.3).keys("ann", "")
    assert time.monotonic() - began < 10


async def test_a_server_that_is_not_there_denies(server: ThreadingHTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/%u"
        source = HttpKeys(Context("http", HttpOptions(url, seconds=0.2), LOG, "info"))
        assert isinstance(await answers(source), Deny)
    assert any("key source it failed" in message for message in caplog.messages)
    assert isinstance(await answers(source), Deny)


async def test_tls_is_checked(tmp_path: Path, pages: type[Pages], monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = certificate_file(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), pages)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that does not trust it is no fault
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setitem(sys.modules, "ssl", None)  # as `dunnart serve` has it
    try:
        assert isinstance(await answers(http(server, scheme="https", ca_file=certificate)), Allow)
        assert isinstance(await answers(http(server, scheme="https")), Deny)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate_file(folder: Path) -> str:
    """Make a certificate for 127.0.0.1 and its key, in one file."""
    import datetime as dt
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM) + key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))  # fmt: skip
    return str(path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "http://example.org/%u"}, "must be https"),
        ({"url": "https://example.org/keys"}, "no %u"),
        ({"url": "https://%u.example.org/"}, "no %u"),
        ({"url": "ftp://example.org/%u"}, "no https"),
        ({"url": "https:///%u"}, "no https"),
        ({"url": "https://example.org/%u", "seconds": 0.0}, "more than 0"),
    ],
)
def test_urls_that_will_not_do(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        HttpOptions(**options)


# Databases.


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = str(tmp_path / "keys.db")
    made = sqlite3.connect(path)
    made.execute("create table keys (name text, line text)")
    made.execute("insert into keys values ('ann', ?), ('ann', null), ('bob', 'nonsense')", (f"no-pty {KEY.line()}",))
    made.commit()
    made.close()
    return path


def sql(database: str, query: str = "select line from keys where name = ?", **options: Any) -> SqlKeys:
    return SqlKeys(Context("sql", SqlOptions(query, connect={"database": database}, **options), LOG, "info"))


@pytest.mark.parametrize("parameter", ["?", ":user", "?1"])
async def test_a_database_has_lines(database: str, parameter: str) -> None:
    source = sql(database, f"select line from keys where name = {parameter}")
    assert list(await source.keys("ann", "")) == [f"no-pty {KEY.line()}"]
    assert list(await source.keys("ann' or '1'='1", "")) == []
    assert await answers(source) == Allow(None, Rights(pty=False))


async def test_what_a_database_cannot_say_denies(database: str, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(await answers(sql(database, "select wrong from keys where name = ?")), Deny)
    assert isinstance(await answers(sql(database, "select 1 where 'ann' = ?")), Deny)
    assert sum("key source it failed" in message for message in caplog.messages) == 2


def test_modules_that_are_none(database: str) -> None:
    for module in ("no_such_module", "json"):
        with pytest.raises(ConfigError, match="module"):
            sql(database, module=module)


# Both.


async def test_one_that_hangs_is_not_waited_for() -> None:
    go = threading.Event()

    def hang(user: str) -> Sequence[str]:
        go.wait(20)
        return ()

    looking_up = LookingUp(hang, 0.2, 60)
    began = time.monotonic()
    tasks = [asyncio.create_task(looking_up.keys("ann", "")) for _ in range(30)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    go.set()
    assert all(isinstance(result, TimeoutError) for result in results)
    assert time.monotonic() - began < 10


async def test_only_so_many_users_are_kept() -> None:
    asked: list[str] = []

    def look_up(user: str) -> Sequence[str]:
        asked.append(user)
        return (user,)

    looking_up = LookingUp(look_up, 5, 60)
    for number in range(1001):
        await looking_up.keys(str(number), "")
    await looking_up.keys("1000", "")
    assert len(asked) == 1001
    await looking_up.keys("0", "")
    assert asked[-1] == "0"
