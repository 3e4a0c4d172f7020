"""Logins by Kerberos tickets, with a real KDC, OpenSSH's client and asyncssh."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from dunnart.daemon.ways_in import this_user
from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.kerberos import REALM, Realm
from tests.interop.support import SECONDS, Served, environment, eventually

USER = this_user().name
OPTIONS = (
    "GSSAPIAuthentication=yes", "PreferredAuthentications=gssapi-with-mic", "PubkeyAuthentication=no",
    "AddressFamily=inet", "LogLevel=VERBOSE",
)  # fmt: skip


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    made = Realm(tmp_path_factory.mktemp("realm"))
    for name in (USER, "stranger", f"{USER}/admin", "stranger/admin"):
        made.add(name)
    yield made
    made.close()


Begin = Callable[..., Served]


@pytest.fixture
def kerberos(start: Serve, realm: Realm, tmp_path: Path) -> Begin:
    """Start a server that takes tickets; gives it the lines of its plug-in's table."""

    def begin(*lines: str, flags: tuple[str, ...] = (), plugin: str = "gssapi") -> Served:
        config = tmp_path / "dunnart.toml"
        table = "\n".join([f'keytab = "{realm.keytab}"', *lines])
        config.write_text(f'authenticators = ["{plugin}"]\n[plugin.{plugin}]\n{table}\n')
        return start("--config", str(config), *flags, variables=realm.variables)

    return begin


def log_in(
    server: Served, tickets: Mapping[str, str], command: str = "echo in", *options: str
) -> subprocess.CompletedProcess[str]:
    chosen = (*options, *OPTIONS, f"HostKeyAlias=[127.0.0.1]:{server.port}")
    line, env = OpenSsh().command(server, *(part for each in chosen for part in ("-o", each)))
    return subprocess.run([*line[:-1], "localhost", command], env=env | dict(tickets), capture_output=True, text=True,
                          timeout=SECONDS, check=False)  # fmt: skip


def test_a_ticket_logs_in(kerberos: Begin, realm: Realm) -> None:
    server = kerberos()
    done = log_in(server, realm.log_in(USER))
    assert done.stdout == "in\n", done.stderr
    assert server.logs(f"Accepted gssapi-with-mic for {USER} from")
    assert server.logs(f"{USER}@{REALM} logs in as {USER}")


async def over_asyncssh(server: Served, **options: Any) -> str:
    async with asyncssh.connect(
        "localhost", server.port, username=server.user, gss_host="localhost", client_keys=None, agent_path=None,
        config=None, password=None, family=socket.AF_INET, **options,
    ) as connection:  # fmt: skip
        return str((await connection.run("echo in", check=True)).stdout)


def test_asyncssh(kerberos: Begin, realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    server = kerberos()
    for name, value in realm.log_in(USER).items():
        monkeypatch.setenv(name, value)

    assert asyncio.run(asyncio.wait_for(over_asyncssh(server, gss_kex=False, known_hosts=None), SECONDS)) == "in\n"
    assert server.logs(f"Accepted gssapi-with-mic for {USER} from")


def test_without_a_ticket(kerberos: Begin, realm: Realm) -> None:
    server = kerberos()
    done = log_in(server, realm.variables)
    assert done.returncode == 255
    assert "Permission denied (" in done.stderr
    assert "Accepted" not in server.log


def test_somebody_else_s_ticket(kerberos: Begin, realm: Realm) -> None:
    server = kerberos()
    done = log_in(server, realm.log_in("stranger"))
    assert done.returncode == 255
    assert server.logs(f"stranger@{REALM} may not log in as this user")


def test_an_expired_ticket(kerberos: Begin, realm: Realm) -> None:
    server = kerberos()
    tickets = realm.log_in(USER, "-l", "1s")
    expires = int(time.time()) + 1  # at the latest; it is good in that whole second
    assert eventually(lambda: time.time() >= expires + 1)
    done = log_in(server, tickets)
    assert done.returncode == 255
    assert "Accepted" not in server.log
    assert log_in(server, realm.log_in(USER)).stdout == "in\n"


def test_another_realm(kerberos: Begin, tmp_path: Path) -> None:
    """Whose KDC calls itself the same, and has a key of its own for this host: the server's keytab has not."""
    server = kerberos()
    folder = tmp_path / "realm"
    folder.mkdir()
    other = Realm(folder)
    try:
        other.add(USER)
        done = log_in(server, other.log_in(USER))
    finally:
        other.close()
    assert done.returncode == 255
    assert server.logs("Failed gssapi-with-mic")


def test_auth_to_local(kerberos: Begin, realm: Realm) -> None:
    """The realm's krb5.conf makes NAME of NAME/admin."""
    server = kerberos()
    assert log_in(server, realm.log_in(f"{USER}/admin")).stdout == "in\n"
    assert log_in(server, realm.log_in("stranger/admin")).returncode == 255
    assert server.logs(f"stranger/admin@{REALM} may not log in as this user")


def test_a_table_of_principals(kerberos: Begin, realm: Realm) -> None:
    server = kerberos("[plugin.gssapi.users]", f'"stranger@{REALM}" = "nobody, {USER}"')
    assert log_in(server, realm.log_in("stranger")).stdout == "in\n"
    assert log_in(server, realm.log_in(USER)).returncode == 255


def test_a_realm_s_principals(kerberos: Begin, realm: Realm) -> None:
    server = kerberos(f'realm = "{REALM}"')
    assert log_in(server, realm.log_in(USER)).stdout == "in\n"
    assert log_in(server, realm.log_in(f"{USER}/admin")).returncode == 255
    assert log_in(server, realm.log_in("stranger")).returncode == 255


def test_tickets_that_are_forwarded_last_as_long_as_the_connection(kerberos: Begin, realm: Realm) -> None:
    server = kerberos("delegation = true")
    command = 'klist -c "$KRB5CCNAME" | grep principal:; f=${KRB5CCNAME#FILE:}; stat -c "%a %U" "$f" "${f%/*}"; echo $f'
    done = log_in(server, realm.log_in(USER, "-f"), command, "GSSAPIDelegateCredentials=yes")
    shown, *modes, path = done.stdout.splitlines()
    assert shown == f"Default principal: {USER}@{REALM}", done.stderr
    assert modes == [f"600 {USER}", f"700 {USER}"]
    assert eventually(lambda: not Path(path).parent.exists())


@pytest.mark.parametrize("lines", [(), ("delegation = true",)])
def test_tickets_that_are_not_forwarded_or_not_wanted(kerberos: Begin, realm: Realm, lines: tuple[str, ...]) -> None:
    wish = "no" if lines else "yes"
    done = log_in(kerberos(*lines), realm.log_in(USER, "-f"), "echo :$KRB5CCNAME", f"GSSAPIDelegateCredentials={wish}")
    assert done.stdout == ":\n"


def test_protocol_processes(kerberos: Begin, realm: Realm) -> None:
    server = kerberos("delegation = true", flags=("--workers", "2"))
    command = 'klist -c "$KRB5CCNAME" | grep -c principal:'
    for _ in range(2):
        done = log_in(server, realm.log_in(USER, "-f"), command, "GSSAPIDelegateCredentials=yes")
        assert done.stdout == "1\n", done.stderr
    assert log_in(server, realm.log_in("stranger")).returncode == 255


# The server proved by Kerberos, without a known host key.

KEYEX = (
    "GSSAPIKeyExchange=yes", "PreferredAuthentications=gssapi-keyex", "UserKnownHostsFile=/dev/null",
    "HostKeyAlias=unknown",
)  # fmt: skip


@pytest.mark.parametrize(
    "kex", ["gss-curve25519-sha256", "gss-nistp256-sha256", "gss-group14-sha256", "gss-group16-sha512"]
)
def test_keys_exchanged_by_kerberos(kerberos: Begin, realm: Realm, kex: str) -> None:
    server = kerberos(plugin="gssapi-keyex", flags=("--kex", "+ecdh-sha2-nistp256"))
    done = log_in(server, realm.log_in(USER), "echo in", *KEYEX, f"GSSAPIKexAlgorithms={kex}-")
    assert done.stdout == "in\n", done.stderr
    assert server.logs(f"keys exchanged by {kex}-")
    assert server.logs(f"Accepted gssapi-keyex for {USER} from")


def test_keys_are_exchanged_again(kerberos: Begin, realm: Realm) -> None:
    server = kerberos(plugin="gssapi-keyex")
    done = log_in(server, realm.log_in(USER), "head -c 1000000 /dev/zero | wc -c; head -c 1000000 /dev/zero", *KEYEX,
                  "RekeyLimit=300K")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1000000\n" + "\0" * 1000000
    assert server.logs("keys exchanged by gss-", 2)


def test_asyncssh_exchanges_keys_by_kerberos(kerberos: Begin, realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    server = kerberos(plugin="gssapi-keyex", flags=("--workers", "1"))
    for name, value in realm.log_in(USER).items():
        monkeypatch.setenv(name, value)
    assert (
        asyncio.run(asyncio.wait_for(over_asyncssh(server, gss_kex=True, known_hosts=([], [], [])), SECONDS)) == "in\n"
    )
    assert server.logs("keys exchanged by gss-")
    assert server.logs(f"Accepted gssapi-keyex for {USER} from")


def test_the_wrong_user_after_such_an_exchange(kerberos: Begin, realm: Realm) -> None:
    server = kerberos(plugin="gssapi-keyex")
    assert log_in(server, realm.log_in("stranger"), "echo in", *KEYEX).returncode == 255
    assert server.logs(f"stranger@{REALM} may not log in as this user")


def test_a_server_that_kerberos_does_not_know(kerberos: Begin, tmp_path: Path) -> None:
    server = kerberos(plugin="gssapi-keyex")
    folder = tmp_path / "realm"
    folder.mkdir()
    other = Realm(folder)
    try:
        other.add(USER)
        done = log_in(server, other.log_in(USER), "echo in", *KEYEX)
    finally:
        other.close()
    assert done.returncode == 255
    assert server.logs("the GSS-API mechanism failed")


def test_without_such_an_exchange_the_method_lets_nobody_in(kerberos: Begin, realm: Realm) -> None:
    server = kerberos(plugin="gssapi-keyex")
    done = log_in(
        server, realm.log_in(USER), "echo in", "GSSAPIKeyExchange=no", "PreferredAuthentications=gssapi-keyex"
    )
    assert done.returncode == 255
    assert "Accepted" not in server.log


def test_an_acceptor_without_keys_does_not_start(realm: Realm, tmp_path: Path) -> None:
    config = tmp_path / "dunnart.toml"
    config.write_text(
        f'authenticators = ["gssapi"]\n[plugin.gssapi]\nkeytab = "{realm.keytab}"\nacceptor = "host@elsewhere"\n'
    )
    line = [sys.executable, "-m", "dunnart", "serve", "--config", str(config), "--listen", "127.0.0.1:0"]
    line += ["--state-folder", str(tmp_path)]
    done = subprocess.run(line, env=environment(tmp_path, **realm.variables), capture_output=True, text=True,
                          timeout=SECONDS, check=False)  # fmt: skip
    assert done.returncode != 0
    assert "there are no usable keys of host@elsewhere" in done.stderr
