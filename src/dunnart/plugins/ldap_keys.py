"""The key source `ldap`: lines of authorized_keys from a directory, in the attribute sshPublicKey of OpenSSH-LPK."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from dunnart.errors import ConfigError
from dunnart.plugins.looking_up import LOOPBACK, LookingUp, have_tls
from dunnart.records import dataclass
from dunnart.server.plugins import Context, plugin

_SPECIAL = re.compile(r"[\\*()\0]")


@dataclass(frozen=True)
class Options:
    """Which directory, and what is looked for in it.

    Attributes:
        url: the server: ldaps://HOST, or ldap://HOST, with which TLS begins before anything is said, but for servers on
            this machine.
        base: below which entry users are looked for, as "ou=people,dc=example,dc=org".
        filter: what a user's entry fits; %u is the user's name. A name that fits several entries has no keys.
        attribute: holds the lines.
        bind_dn: as whom to ask; empty: as nobody.
        password_file: the file with its password.
        ca_file: certificates that the server's is checked with; empty: those that the system trusts.
        seconds: how long an answer may take.
        cache_seconds: how long an answer counts; so long a key that was withdrawn still lets in.
    """

    url: str
    base: str
    filter: str = "(&(objectClass=posixAccount)(uid=%u))"
    attribute: str = "sshPublicKey"
    bind_dn: str = ""
    password_file: str = ""
    ca_file: str = ""
    seconds: float = 5.0
    cache_seconds: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"ldap", "ldaps"} or not parts.hostname or parts.path.strip("/"):
            raise ValueError(f"url is {self.url!r}, which is no ldaps://HOST")
        if "%u" not in self.filter:
            raise ValueError("filter holds no %u: it would give everybody's keys to everybody")
        if bool(self.bind_dn) != bool(self.password_file):
            raise ValueError("password_file and bind_dn go together")
        if self.seconds <= 0 or self.cache_seconds < 0:
            raise ValueError("seconds must be more than 0, cache_seconds not less")


@plugin(Options)
class LdapKeys:
    """Knows the keys that a directory has for a user."""

    def __init__(self, context: Context[Options]) -> None:
        self._options = options = context.options
        have_tls()
        import ssl

        try:
            import ldap3
        except ImportError as error:
            raise ConfigError("needs ldap3: pip install 'dunnart[ldap]'", key="url") from error
        self._ldap3 = ldap3
        parts = urlsplit(options.url)
        self._secure = parts.scheme == "ldaps"
        self._host, self._port = parts.hostname or "", parts.port or (636 if self._secure else 389)
        self._start_tls = not self._secure and self._host not in LOOPBACK
        self._tls: dict[str, Any] = {"validate": ssl.CERT_REQUIRED, "ca_certs_file": options.ca_file or None}
        self._password = _password(options.password_file) if options.password_file else None
        self._looking_up = LookingUp(self._ask, options.seconds, options.cache_seconds)

    async def keys(self, user: str, address: str) -> Sequence[str]:
        """Ask the directory, or remember."""
        return await self._looking_up.keys(user, address)

    def _ask(self, user: str) -> Sequence[str]:
        ldap3, options = self._ldap3, self._options
        server = ldap3.Server(
            self._host, self._port, use_ssl=self._secure, tls=ldap3.Tls(**self._tls), get_info=ldap3.NONE,
            connect_timeout=options.seconds,
        )  # fmt: skip
        connection = ldap3.Connection(
            server, options.bind_dn or None, self._password, read_only=True, auto_referrals=False,
            raise_exceptions=True, receive_timeout=math.ceil(options.seconds),
        )  # fmt: skip
        try:
            connection.open(read_server_info=False)
            if self._start_tls:
                connection.start_tls(read_server_info=False)
            connection.bind(read_server_info=False)
            wanted = options.filter.replace("%u", _SPECIAL.sub(lambda found: f"\\{ord(found[0]):02x}", user))
            connection.search(options.base, wanted, attributes=[options.attribute])
            entries = [each for each in connection.response or () if each.get("type") == "searchResEntry"]
        finally:
            sock = connection.socket
            connection.unbind()
            if sock is not None:  # after some failures it is left open
                sock.close()
        if len(entries) > 1:
            raise ValueError(f"{len(entries)} entries fit the name {user!r}")
        values = entries[0]["raw_attributes"].get(options.attribute, ()) if entries else ()
        return [value.decode(errors="surrogateescape") for value in values]


def _password(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}", key="password_file") from error
