"""What may be said about the way to a server and into it: methods, certificates, other names, where one comes from."""

from __future__ import annotations

import pytest

import dunnart
from dunnart.client import UnknownHost, connect
from dunnart.errors import AuthenticationFailed, ConfigError, ConnectionClosed
from dunnart.keys import Certificate, KnownHosts, PrivateKey
from dunnart.server import Allow, Attempt, AuthReply, Deny, PasswordCredential
from tests.client.support import HOST_KEY, KEY, USER, serving

CA = PrivateKey.generate("ed25519")


class Secret:
    """A password, and a count of how often it was asked for."""

    method = "password"

    def __init__(self) -> None:
        self.tries = 0

    async def authenticate(self, attempt: Attempt) -> AuthReply:
        """Compare."""
        assert isinstance(attempt.credential, PasswordCredential)
        self.tries += 1
        return Allow() if attempt.credential.password == "secret" else Deny()


async def test_methods_are_tried_in_the_order_that_is_wanted() -> None:
    secret = Secret()
    async with serving(authenticators=[dunnart.PublicKeys(KEY.public.line()), secret]) as server:
        async with server.connect(password="secret", methods=("password", "publickey")):
            assert secret.tries == 1
        async with server.connect(password="secret"):
            assert secret.tries == 1
        with pytest.raises(AuthenticationFailed, match="Tried: nothing"):
            await server.connect(password="secret", methods=("keyboard-interactive",))
        with pytest.raises(ConfigError, match="'hostbased' is none of"):
            server.connect(methods=("hostbased",))


async def test_a_certificate_among_the_keys_is_shown_for_the_key_that_it_is_of() -> None:
    other = PrivateKey.generate("ed25519")
    certificate = Certificate.issue(CA, KEY.public, kind="user", key_id="an id", principals=[USER])
    by_authority = dunnart.PublicKeys(f"cert-authority {CA.public.line()}")
    async with serving(authenticators=[by_authority]) as server:
        async with server.connect(keys=[other, KEY, certificate]) as connection:
            assert (await connection.run("echo hello")).stdout == b"hello"
        with pytest.raises(AuthenticationFailed):
            await server.connect(keys=[other, certificate])


async def test_the_host_may_be_known_by_another_name() -> None:
    known = KnownHosts(f"alias {HOST_KEY.public.line()}\n")
    asked: list[str] = []

    async def unknown(host: UnknownHost) -> bool:
        asked.append(host.name)
        return True

    async with serving() as server:
        async with server.connect(known_hosts=known, host_key_alias="alias"):
            pass
        async with server.connect(known_hosts=KnownHosts(), host_key_alias="new", unknown_host=unknown):
            assert asked == ["new"]


async def test_what_the_server_says_first_is_told_and_where_we_come_from_is_chosen() -> None:
    told: list[str] = []
    async with serving(banner="Beware.\n") as server:
        async with server.connect(banner=told.append, bind=("127.0.0.2", 0)) as connection:
            assert connection.pump.local_address[0] == "127.0.0.2"
        assert told == ["Beware.\n"]
        with pytest.raises(ConnectionClosed, match="Cannot assign requested address"):
            await connect("127.0.0.1", server.port, bind=("192.0.2.1", 0))
