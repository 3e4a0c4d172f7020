"""Certificates of users and hosts between the client and the server of this project, wherever the protocol runs."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

import dunnart
from dunnart.errors import AuthenticationFailed, ConfigError, HostKeyError
from dunnart.keys import Certificate, KnownHosts, PrivateKey, PublicKey, RevokedKeys
from dunnart.server import Allow, Attempt, AuthReply
from dunnart.wire.encoding import text
from tests.client.support import HOST_KEY, KEY, USER, Running, program, serving

CA, OTHER_CA, USER_KEY = (PrivateKey.generate("ed25519") for _ in range(3))
RSA_HOST = PrivateKey.generate("rsa", 2048)
PERMITS = {"permit-pty": b"", "permit-port-forwarding": b""}
PLACEMENTS = ["loop", "thread", "process"]


def issue(ca: PrivateKey = CA, key: PublicKey = USER_KEY.public, **given: Any) -> Certificate:
    fields: dict[str, Any] = {"kind": "user", "key_id": "an id", "principals": [USER], "extensions": PERMITS} | given
    return Certificate.issue(ca, key, **fields)


def files(folder: Path, certificate: Certificate) -> str:
    """Write the user's key and, beside it, a certificate; gives the key's name."""
    path = folder / "key"
    path.write_bytes(USER_KEY.openssh())
    path.chmod(0o600)
    (folder / "key-cert.pub").write_text(f"{certificate.line()}\n")
    return str(path)


def by_authority(options: str = "cert-authority", **given: Any) -> dict[str, Any]:
    return {"authenticators": [dunnart.PublicKeys(f"{options} {CA.public.line()}", **given)]}


async def say(server: Running, key: str) -> bytes:
    async with server.connect(keys=[key]) as connection:
        return (await connection.run("echo hello")).stdout


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_a_certificate_lets_in(tmp_path: Path, placement: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dunnart")
    async with serving(placement=placement, **by_authority()) as server:
        assert await say(server, files(tmp_path, issue(serial=5))) == b"hello"
        forced = issue(critical_options={"force-command": text("echo forced")})
        assert await say(server, files(tmp_path, forced)) == b"forced"
    accepted = next(message for message in caplog.messages if message.startswith("Accepted publickey"))
    shown = f"ED25519-CERT {USER_KEY.public.fingerprint()} ID an id (serial 5) CA ED25519 {CA.public.fingerprint()}"
    assert accepted.endswith(shown)


FORGED = Certificate.decode(issue(principals=["bobby"]).blob.replace(text("bobby"), text(USER)))


@pytest.mark.parametrize("placement", ["loop", "process"])
@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (issue(principals=["bob"]), "its principals (bob) hold none of alice"),
        (issue(kind="host"), "it is a host's certificate"),
        (issue(valid_before=int(time.time()) - 1), "it has expired"),
        (issue(critical_options={"x@example.com": b""}), "'x@example.com' is not known"),
        (issue(key_id="thief"), "'thief' (serial 0) is revoked"),
        (FORGED, "wrong ssh-ed25519 signature"),
        (issue(OTHER_CA), ""),
    ],
)
async def test_certificates_that_do_not(
    tmp_path: Path, placement: str, certificate: Certificate, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dunnart")
    revoked = RevokedKeys()
    revoked.of_authority().key_ids.add("thief")
    async with serving(placement=placement, **by_authority(revoked=revoked)) as server:
        with pytest.raises(AuthenticationFailed):
            await say(server, files(tmp_path, certificate))
    assert any("-CERT" in message and reason in message for message in caplog.messages)


async def test_a_certificate_is_not_as_good_as_its_key(tmp_path: Path) -> None:
    """Whoever knows keys only is not asked about certificates, even of a key that it would let in."""
    asked = []

    class KeysOnly:
        method = "publickey"

        async def authenticate(self, attempt: Attempt) -> AuthReply:
            asked.append(attempt.credential)
            return Allow()

    async with serving(authenticators=[KeysOnly()]) as server:
        assert await say(server, files(tmp_path, issue())) == b"hello"  # by the key, which comes after
    assert asked
    assert all(getattr(each, "certificate", None) is None for each in asked)


async def test_a_list_of_plain_keys_does_not_take_certificates(tmp_path: Path) -> None:
    async with serving(authenticators=[dunnart.PublicKeys(CA.public.line())]) as server:
        with pytest.raises(AuthenticationFailed):
            await say(server, files(tmp_path, issue()))


# Certificates of hosts.


def host(key: PrivateKey = HOST_KEY, **given: Any) -> Certificate:
    fields: dict[str, Any] = {"kind": "host", "principals": ["127.0.0.1"], "extensions": {}} | given
    return issue(key=key.public, **fields)


KNOWN = KnownHosts(f"@cert-authority 127.0.0.1,[127.0.0.1]:* {CA.public.line()}\n")


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("key", [HOST_KEY, RSA_HOST], ids=["ed25519", "rsa"])
async def test_a_host_s_certificate_makes_it_known(placement: str, key: PrivateKey) -> None:
    options = {"host_keys": [key], "host_certificates": [host(key).line().encode()], "placement": placement}
    async with serving(**options) as server, server.connect(known_hosts=KNOWN) as connection:
        assert (await connection.run("echo hello")).stdout == b"hello"


async def test_names_in_host_certificates_may_be_patterns() -> None:
    certificate = host(principals=["x", "127.0.?.*"])
    async with serving(host_certificates=[certificate]) as server, server.connect(known_hosts=KNOWN) as connection:
        assert not connection.closed


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (host(principals=["127.0.0.2"]), "it is for 127.0.0.2"),
        (host(principals=["127.0.1.*"]), r"it is for 127.0.1.\*"),
        (host(principals=[]), "it is for nobody"),
        (host(valid_before=5), "not valid at this time"),
        (host(critical_options={"x": b""}), "'x' is not known"),
    ],
)
async def test_certificates_that_do_not_make_it_known(certificate: Certificate, reason: str) -> None:
    async with serving(host_certificates=[certificate]) as server:
        with pytest.raises(HostKeyError, match=reason):
            await server.connect(known_hosts=KNOWN)
        async with server.connect(known_hosts=server.known) as connection:  # its key is offered beside
            assert not connection.closed


def test_host_certificates_that_are_no_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("nothing\n")
    for given, reason in (
        (issue(key=HOST_KEY.public), "a user's certificate"),
        (host(RSA_HOST), "for none of the host keys"),
        (b"nothing", "type and base64 wanted"),
        (str(tmp_path / "file"), "type and base64 wanted"),
        (str(tmp_path / "missing"), "No such file"),
        (5, "is no Certificate"),
    ):
        with pytest.raises(ConfigError, match=reason):
            dunnart.Server(
                program,
                host_keys=[HOST_KEY],
                host_certificates=[given],  # type: ignore[list-item] # wrong on purpose
                authenticators=[dunnart.PublicKeys(KEY.public.line())],
            )
