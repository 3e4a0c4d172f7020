"""The key source `ldap` at a real OpenLDAP server, which the test starts."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dunnart.errors import ConfigError
from dunnart.keys import PrivateKey
from dunnart.plugins.key_sources import KeySources
from dunnart.plugins.ldap_keys import LdapKeys, Options
from dunnart.server import Allow, Attempt, Context, Deny, PublicKeyCredential, Rights
from tests.interop.peers import answers
from tests.interop.support import SECONDS, eventually, free_port, missing
from tests.unit.plugins.test_key_look_ups import certificate_file

# ldap3 uses names that pyasn1 and ssl will not have for ever, and leaves sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def _nothing_left() -> Iterator[None]:
    """Have those sockets closed here, and not while a later test counts descriptors."""
    yield
    gc.collect()


KEY, OTHER = PrivateKey.generate("ed25519").public, PrivateKey.generate("ed25519").public
BASE = "ou=people,dc=example,dc=org"
ADMIN, PASSWORD = "cn=admin,dc=example,dc=org", "correct horse"
CONFIG = """\
include {schema}/core.schema
include {schema}/cosine.schema
include {schema}/nis.schema
attributetype ( 1.3.6.1.4.1.24552.500.1.1.1.13 NAME 'sshPublicKey' EQUALITY octetStringMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
objectclass ( 1.3.6.1.4.1.24552.500.1.1.2.0 NAME 'ldapPublicKey' SUP top AUXILIARY MAY sshPublicKey )
modulepath {modules}
moduleload back_mdb
pidfile {folder}/pid
TLSCertificateFile {certificate}
TLSCertificateKeyFile {certificate}
database mdb
suffix "dc=example,dc=org"
rootdn "{admin}"
rootpw "{password}"
directory {folder}/data
access to attrs=userPassword by * none
access to dn.children="ou=hidden,{base}" by * none
access to * by * read
"""
PERSON = """\
dn: uid={uid},{ou}{base}
objectClass: account
objectClass: posixAccount
objectClass: ldapPublicKey
cn: {uid}
uid: {uid}
uidNumber: 1000
gidNumber: 1000
homeDirectory: /home/{uid}
"""


@dataclass
class Directory:
    """A server that runs."""

    port: int
    secure_port: int
    certificate: str

    def source(self, url: str = "", **options: Any) -> LdapKeys:
        given: dict[str, Any] = {"url": url or f"ldap://127.0.0.1:{self.port}", "base": BASE, "cache_seconds": 0.0}
        return LdapKeys(Context("ldap", Options(**{**given, **options}), logging.getLogger("test"), "info"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    path = shutil.which("slapd", path=f"{os.environ['PATH']}:/usr/sbin") or missing("slapd")
    folder = tmp_path_factory.mktemp("slapd")
    (folder / "data").mkdir()
    certificate = certificate_file(folder)
    root = Path(path).parents[2]
    config = folder / "slapd.conf"
    config.write_text(CONFIG.format(
        schema=root / "etc/ldap/schema", modules=Path(path).parents[1] / "lib/ldap", folder=folder, admin=ADMIN,
        password=PASSWORD, base=BASE, certificate=certificate,
    ))  # fmt: skip
    entries = ["dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example\n",
               f"dn: {BASE}\nobjectClass: organizationalUnit\nou: people\n",
               f"dn: ou=hidden,{BASE}\nobjectClass: organizationalUnit\nou: hidden\n",
               PERSON.format(uid="ann", ou="", base=BASE) + f"sshPublicKey: no-pty {KEY.line('a')}\n"
               f"sshPublicKey: {OTHER.line('b')}\n",
               PERSON.format(uid="eve", ou="", base=BASE),
               PERSON.format(uid="eve", ou="ou=hidden,", base=BASE) + f"sshPublicKey: {KEY.line('c')}\n",
               PERSON.format(uid="hal", ou="ou=hidden,", base=BASE) + f"sshPublicKey: {KEY.line('d')}\n"]  # fmt: skip
    (folder / "entries.ldif").write_text("\n".join(entries))
    add = [path, "-T", "add", "-f", str(config), "-l", str(folder / "entries.ldif")]
    done = subprocess.run(add, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    port, secure = free_port(), free_port()
    urls = f"ldap://127.0.0.1:{port} ldaps://127.0.0.1:{secure}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([path, "-d", "0", "-f", str(config), "-h", urls], stdout=log, stderr=log)
    try:
        assert eventually(lambda: (answers(port) and answers(secure)) or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield Directory(port, secure, certificate)
    finally:
        process.terminate()
        process.wait()


def lines(source: LdapKeys, user: str) -> list[str]:
    return list(asyncio.run(source.keys(user, "")))


def reply(source: LdapKeys, user: str = "ann") -> Allow | Deny:
    credential = PublicKeyCredential(KEY, "ssh-ed25519", signed=True)
    found = asyncio.run(KeySources({"ldap": source}).authenticate(Attempt(user, credential, "192.0.2.1")))
    assert isinstance(found, Allow | Deny)
    return found


def test_an_entry_s_lines_are_a_user_s(directory: Directory) -> None:
    source = directory.source()
    assert sorted(lines(source, "ann")) == sorted([f"no-pty {KEY.line('a')}", OTHER.line("b")])
    assert reply(source) == Allow(None, Rights(pty=False))
    assert lines(source, "eve") == []
    assert lines(source, "nobody") == []


def test_a_name_is_a_name_and_no_filter(directory: Directory) -> None:
    source = directory.source(filter="(uid=%u)")
    for name in ("*", "a*", "ann)(uid=*", "\\61nn", "ann\0", "", "é"):
        assert lines(source, name) == [], name


def test_who_asks_counts(directory: Directory, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "wrong").write_text("wrong\n")
    assert isinstance(reply(directory.source(), "hal"), Deny)
    admin = directory.source(bind_dn=ADMIN, password_file=str(tmp_path / "password"))
    assert isinstance(reply(admin, "hal"), Allow)
    assert isinstance(reply(admin, "eve"), Deny)  # there are two of them
    assert any("2 entries fit" in message for message in caplog.messages)
    wrong = directory.source(bind_dn=ADMIN, password_file=str(tmp_path / "wrong"))
    assert isinstance(reply(wrong, "hal"), Deny)
    assert any("invalidCredentials" in message for message in caplog.messages)


def test_tls_is_checked(directory: Directory) -> None:
    url = f"ldaps://127.0.0.1:{directory.secure_port}"
    assert isinstance(reply(directory.source(url, ca_file=directory.certificate)), Allow)
    assert isinstance(reply(directory.source(url)), Deny)


def test_a_server_that_is_gone_denies(directory: Directory) -> None:
    assert isinstance(reply(directory.source(f"ldap://127.0.0.1:{free_port()}", seconds=1.0)), Deny)
    assert isinstance(reply(directory.source(base="ou=nowhere,dc=example,dc=org")), Deny)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "http://host"}, "no ldaps"),
        ({"url": "ldaps://"}, "no ldaps"),
        ({"filter": "(uid=ann)"}, "no %u"),
        ({"bind_dn": ADMIN}, "go together"),
        ({"seconds": 0.0}, "more than 0"),
    ],
)
def test_options_that_will_not_do(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Options(**({"url": "ldaps://host", "base": BASE} | options))


def test_a_password_file_must_be_there() -> None:
    options = Options("ldaps://host", BASE, bind_dn=ADMIN, password_file="/no/such/file")
    with pytest.raises(ConfigError, match="No such file"):
        LdapKeys(Context("ldap", options, logging.getLogger("test"), "info"))
