"""Authorities that the server trusts, lists of principals, and keys that are revoked."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from dunnart.daemon.host_keys import load_host_certificates
from dunnart.errors import ConfigError
from dunnart.keys import Certificate, PrivateKey, PublicKey, RevokedKeys
from dunnart.keys.authorized_keys import Decision
from dunnart.keys.certified import UserCertificate
from dunnart.plugins import keys_command, os_account
from dunnart.plugins.authorized_keys import AuthorizedKeysFiles
from dunnart.plugins.certificates import TrustedAuthorities, principals_command
from dunnart.plugins.os_account import Account
from dunnart.plugins.revoked_keys import NotRevoked, RevokedKeysFile
from dunnart.server import Address, Allow, Attempt, AuthReply, Deny, PublicKeyCredential, PublicKeys
from dunnart.testing.authenticator import Authenticator

CA, OTHER_CA, USER = (PrivateKey.generate("ed25519") for _ in range(3))
ED = "ssh-ed25519-cert-v01@openssh.com"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of alice; programs run as whoever runs the tests."""
    runner = Account("runner", os.geteuid(), os.getegid(), "/", "/bin/sh")
    found = {"alice": Account("alice", 1234, 1234, str(tmp_path), "/bin/sh"), "runner": runner}
    monkeypatch.setattr(os_account, "find", found.get)
    monkeypatch.setattr(keys_command, "strict_modes_reason", lambda *_: None)  # /tmp is everybody's
    (tmp_path / "trusted").write_text(f"# ours\n{CA.public.line('a comment')}\n")
    return tmp_path


def issue(ca: PrivateKey = CA, key: PublicKey = USER.public, **given: Any) -> Certificate:
    return Certificate.issue(ca, key, **({"kind": "user", "key_id": "an id", "principals": ["alice"]} | given))


def attempt(certificate: Certificate, user: str = "alice") -> Attempt:
    credential = PublicKeyCredential(certificate.key, certificate.key_type, signed=True, certificate=certificate)
    return Attempt(user, credential, "192.0.2.1", port=9999, local=Address("192.0.2.2", 22))


def files(home: Path, *arguments: Any, **options: Any) -> AuthorizedKeysFiles:
    trusted = TrustedAuthorities([str(home / "trusted")], *arguments, strict_modes=False, **options)
    return AuthorizedKeysFiles(("keys",), strict_modes=False, trusted=trusted)


async def reason(authenticator: Any, certificate: Certificate, user: str = "alice") -> str:
    reply = await authenticator.authenticate(attempt(certificate, user))
    assert isinstance(reply, Deny)
    return reply.detail


async def test_a_trusted_authority_lets_its_users_in(home: Path) -> None:
    reply = await files(home).authenticate(attempt(issue(extensions={"permit-pty": b""})))
    assert isinstance(reply, Allow)
    assert reply.grant == os_account.find("alice")
    assert reply.rights is not None
    assert (reply.rights.pty, reply.rights.port_forwarding) == (True, False)
    assert await reason(files(home), issue(OTHER_CA)) == "its authority is not trusted"
    assert "hold none of alice" in await reason(files(home), issue(principals=["bob"]))
    assert await reason(files(home), issue(), user="bob") == "no such user here"


async def test_authorities_that_change_count_at_once(home: Path) -> None:
    authenticator = files(home)
    (home / "trusted").write_text(f"{OTHER_CA.public.line()}\n\n")
    assert isinstance(await authenticator.authenticate(attempt(issue(OTHER_CA))), Allow)
    assert await reason(authenticator, issue()) == "its authority is not trusted"
    (home / "trusted").unlink()
    assert await reason(authenticator, issue(OTHER_CA)) == "its authority is not trusted"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no key"),
        ("nonsense\n", "no key on the line"),
        (f"cert-authority {CA.public.line()}\n", "stands alone on its line"),
        (issue().line(), "certificate"),
    ],
)
def test_files_of_authorities_that_are_wrong(home: Path, content: str, said: str) -> None:
    (home / "trusted").write_text(content)
    with pytest.raises(ConfigError, match=said):
        files(home)


def test_a_file_of_authorities_that_is_missing(home: Path) -> None:
    (home / "trusted").unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        files(home)


async def test_lists_of_principals(home: Path) -> None:
    authenticator = files(home, "%h/principals_%u")
    assert "is listed for alice" in await reason(authenticator, issue(principals=["admin"]))
    (home / "principals_alice").write_text("no-pty admin\n")
    reply = await authenticator.authenticate(attempt(issue(principals=["admin"], extensions={"permit-pty": b""})))
    assert isinstance(reply, Allow)
    assert reply.rights is not None
    assert not reply.rights.pty
    assert "is listed for alice" in await reason(authenticator, issue())  # the name itself is not on the list


async def test_lists_that_others_can_write_count_for_nothing(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    list_ = home / "principals"
    list_.write_text("admin\n")
    list_.chmod(0o666)
    trusted = TrustedAuthorities([str(home / "trusted")], "principals")
    authenticator = AuthorizedKeysFiles((), trusted=trusted)
    assert "is listed for alice" in await reason(authenticator, issue(principals=["admin"]))
    assert "lets nobody in" in caplog.text


def asks(home: Path, text: str, arguments: str = "", seconds: float = 10.0) -> AuthorizedKeysFiles:
    script = home / "command"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    command = principals_command(f"{script} {arguments}", "runner", seconds)
    return files(home, "%h/principals", command)


async def test_a_program_that_knows_principals(home: Path) -> None:
    authenticator = asks(home, 'echo "$@" >"$0.asked"; echo admin', "%u %U %h %t %T %F %i %s %%")
    assert isinstance(await authenticator.authenticate(attempt(issue(principals=["admin"], serial=7))), Allow)
    asked = (home / "command.asked").read_text().split()
    assert asked == ["alice", "1234", str(home), ED, "ssh-ed25519", CA.public.fingerprint(), "an", "id", "7", "%"]
    assert "is listed for alice" in await reason(authenticator, issue())


async def test_it_is_not_asked_where_there_is_nothing_to_ask(home: Path) -> None:
    authenticator = asks(home, 'touch "$0.asked"; echo admin')
    (home / "principals").write_text('from="198.51.100.1" admin\nstaff\n')
    assert "is not among its from" in await reason(authenticator, issue(principals=["admin"]))
    assert isinstance(await authenticator.authenticate(attempt(issue(principals=["staff"]))), Allow)
    assert await reason(authenticator, issue(OTHER_CA, principals=["admin"])) == "its authority is not trusted"
    assert await reason(authenticator, issue(principals=["admin"], valid_before=1)) == "it has expired"
    assert not (home / "command.asked").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo admin; exit 1", "has ended with status 1"),
        ("sleep 60; echo admin", "has not ended within 0.3 s"),
        ("yes admin", "more than 1 MiB"),
    ],
)
async def test_a_program_that_fails_lets_nobody_in(
    home: Path, script: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    authenticator = asks(home, script, seconds=0.3 if "sleep" in script else 10.0)
    began = time.monotonic()
    assert "is listed for alice" in await reason(authenticator, issue(principals=["admin"]))
    assert time.monotonic() - began < 30
    assert said in caplog.text


async def test_a_key_id_that_no_program_can_be_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    authenticator = asks(home, "echo admin", "%i")
    certificate = issue(principals=["admin"], key_id="a?b")
    evil = Certificate.decode(certificate.blob.replace(b"a?b", b"a\0b"))
    forged = Certificate.decode(
        evil.signed + (len(sealed := CA.sign("ssh-ed25519", evil.signed))).to_bytes(4, "big") + sealed
    )
    assert "is listed for alice" in await reason(authenticator, forged)
    assert "authorized_principals_command failed" in caplog.text


def test_commands_that_cannot_be_used(home: Path) -> None:
    for command, user, key in (("/bin/x", "", "principals_command_user"), ("x", "runner", "principals_command"),
                               ("/bin/x %z", "runner", "principals_command")):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            principals_command(command, user, 1.0)
        assert caught.value.key == key


async def test_nobody_learns_from_the_time_who_exists(home: Path) -> None:
    authenticator = asks(home, "sleep 0.4; echo admin")
    assert isinstance(await authenticator.authenticate(attempt(issue(principals=["admin"]))), Allow)
    began = time.monotonic()
    await reason(authenticator, issue(principals=["admin"]), user="nobody-here")
    assert time.monotonic() - began > 0.3


async def test_certificates_of_security_keys(home: Path) -> None:
    token = Authenticator("ed25519")
    plain = issue(key=token.public)
    assert plain.key_type == "sk-ssh-ed25519-cert-v01@openssh.com"
    cases: list[tuple[dict[str, Any], bool, bool]] = [
        ({}, True, False),
        ({"extensions": {"no-touch-required": b""}}, False, False),
        ({"critical_options": {"verify-required": b""}}, True, True),
    ]
    for options, touch, verify in cases:
        reply = await files(home).authenticate(attempt(issue(key=token.public, **options)))
        assert isinstance(reply, Allow)
        assert (reply.touch, reply.verify) == (touch, verify)
    signature = token.sign("sk-ssh-ed25519@openssh.com", b"data")
    details = plain.verify("sk-ssh-ed25519-cert-v01@openssh.com", signature, b"data")
    assert details is not None
    assert details.user_present


def test_a_decision_about_another_authority_asks_for_nothing() -> None:
    login = UserCertificate(issue(), user="alice", address="", now=0.0, algorithms=("ssh-ed25519",))
    assert login.decide_trusted(set()) == Decision(None, ("its authority is not trusted",))


# Revoked keys.


class Allowing:
    method = "publickey"
    certificates = True

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        return Deny("unknown", unknown_user=True) if attempt.user == "bob" else Allow("a grant")


async def test_what_is_revoked_is_not_let_in_by_anybody(home: Path) -> None:
    path = home / "revoked"
    path.write_text("")
    guarded = NotRevoked(Allowing(), [RevokedKeysFile(str(path))])
    certificate = issue(serial=5)
    assert await guarded.authenticate(attempt(certificate)) == Allow("a grant")
    assert await guarded.authenticate(attempt(certificate, "bob")) == Deny("unknown", unknown_user=True)
    revoked = RevokedKeys()
    revoked.of_authority(CA.public.blob).revoke_serials(5, 9)
    path.write_bytes(revoked.encode())
    assert "(serial 5) is revoked" in await reason(guarded, certificate)
    assert await guarded.authenticate(attempt(issue(serial=4))) == Allow("a grant")
    path.write_text(f"{USER.public.line()}\n")
    assert "is revoked" in await reason(guarded, issue(serial=4))


@pytest.mark.parametrize("content", [b"nonsense", b"SSHKRL\n\0", None])
async def test_a_list_that_cannot_be_used_revokes_everything(home: Path, content: bytes | None) -> None:
    path = home / "revoked"
    if content is not None:
        path.write_bytes(content)
    file = RevokedKeysFile(str(path))
    with pytest.raises(ConfigError, match="revoked"):
        file.load()
    guarded = NotRevoked(Allowing(), [file])
    assert "not known which are revoked" in await reason(guarded, issue())
    path.write_text("# none\n")
    assert await guarded.authenticate(attempt(issue())) == Allow("a grant")


async def test_a_pipe_in_the_place_of_a_list_stops_nobody(home: Path) -> None:
    os.mkfifo(home / "revoked")
    began = time.monotonic()
    assert "not known" in await reason(NotRevoked(Allowing(), [RevokedKeysFile(str(home / "revoked"))]), issue())
    assert time.monotonic() - began < 20


def test_what_travels_may_not_have_authorities() -> None:
    assert not PublicKeys(f"cert-authority {CA.public.line()}").travels


# Certificates of hosts.


def test_host_certificates_in_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host = PrivateKey.generate("ed25519")

    def written(certificate: Certificate) -> list[str]:
        (tmp_path / "cert").write_text(certificate.line())
        return [str(tmp_path / "cert")]

    good = issue(key=host.public, kind="host", principals=["h"])
    assert load_host_certificates(written(good), [USER, host]) == (good,)
    for certificate, said in (
        (issue(key=host.public), "a user's certificate"),
        (issue(kind="host"), "which is no host key"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_host_certificates(written(certificate), [host])
    assert "not valid at this time" not in caplog.text
    load_host_certificates(written(issue(key=host.public, kind="host", valid_before=5)), [host])
    assert "not valid at this time" in caplog.text
    with pytest.raises(ConfigError, match="No such file"):
        load_host_certificates([str(tmp_path / "missing")], [host])
