"""Is this the server's key? Known hosts, and what is said when the answer is no."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError, HostKeyError, KeyFormatError
from dunnart.keys.certificate import Certificate, plain_name
from dunnart.keys.known_hosts import KnownHosts, host_name
from dunnart.keys.patterns import matches
from dunnart.records import dataclass

if TYPE_CHECKING:
    from dunnart.keys.public import PublicKey

DEFAULT_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_LARGEST = 64 << 20


class TrustAnyHostKey:
    """Take whatever key the server shows. Whoever stands between you and it can read and change everything.

    For tests, and for networks that nobody else is on.
    """


@dataclass(frozen=True, slots=True)
class UnknownHost:
    """A host of which no key is known.

    Attributes:
        host: its name as it was given; `port` goes with it.
        key: what it has shown, and proved to have.
    """

    host: str
    port: int
    key: PublicKey

    @property
    def name(self) -> str:
        """How it is called in a known_hosts file: the host, or "[host]:port"."""
        return host_name(self.host, self.port)

    @property
    def fingerprint(self) -> str:
        """The key's fingerprint, as ssh shows it."""
        return self.key.fingerprint()

    def remember(self, path: str | os.PathLike[str] = "~/.ssh/known_hosts", *, hashed: bool = False) -> None:
        """Add the host to a known_hosts file, which is made (mode 0600) if it is missing.

        Args:
            path: the file.
            hashed: do not show the host's name in it.

        Raises:
            ConfigError: the file cannot be written.
            KeyFormatError: the host's name cannot stand in such a file.
        """
        line = KnownHosts().add(self.host, self.port, self.key, hashed=hashed)
        file = os.path.expanduser(path)
        try:
            os.makedirs(os.path.dirname(file) or ".", mode=0o700, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
            with open(descriptor, "r+b", buffering=0) as opened:
                end = opened.seek(0, os.SEEK_END)
                # A last line without its end would swallow ours.
                unended = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
                opened.write(b"\n" * unended + line.encode() + b"\n")
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", path=file) from error


KnownHostsSource = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | KnownHosts | TrustAnyHostKey
UnknownHostCallback = Callable[[UnknownHost], Awaitable[bool]]


class HostKeyCheck:
    """Decides about one server's key.

    Args:
        host: its name as it was given; `port` goes with it.
        source: files, which need not be there, what was read before, or the wish to trust anything; None for the files
            that ssh reads.
        unknown: asked when the host is not known; None: it is refused.
        alias: the name under which its key is known, if that is another one.

    Raises:
        ConfigError: a file cannot be read.
    """

    def __init__(
        self, host: str, port: int, source: KnownHostsSource | None, unknown: UnknownHostCallback | None,
        *, alias: str | None = None,
    ) -> None:  # fmt: skip
        self.host = host
        self.port = port
        self._name, self._known_port = (host, port) if alias is None else (alias, 22)
        self._unknown = unknown
        self._trusts_any = isinstance(source, TrustAnyHostKey)
        self._known: list[tuple[str, KnownHosts]] = []
        if isinstance(source, KnownHosts):
            self._known = [("known hosts", source)]
        elif not isinstance(source, TrustAnyHostKey):
            files = DEFAULT_FILES if source is None else (source,) if isinstance(source, str | os.PathLike) else source
            self._files = [os.path.expanduser(os.fspath(file)) for file in files]
            self._known = [(file, KnownHosts(_read(file))) for file in self._files]

    def preferred(self, offered: tuple[str, ...]) -> tuple[str, ...]:
        """Put the algorithms first that the known keys can sign with, so that the server shows one of those.

        Certificates come before all if an authority is known that may sign them, and are not asked for if none is.
        """
        known = [name for _, hosts in self._known for key in self._keys(hosts) for name in key.signature_algorithms]
        certificates = tuple(name for name in offered if plain_name(name)) if self.certified else ()
        plain = (name for name in offered if not plain_name(name))
        return (*certificates, *sorted(plain, key=lambda name: name not in known))

    def _keys(self, hosts: KnownHosts) -> tuple[PublicKey, ...]:
        return hosts.keys(self._name, self._known_port) or hosts.keys(self._name, 22)

    @property
    def certified(self) -> bool:
        """Whether some authority is known that may sign certificates of the host."""
        return any(self._authorities(hosts) for _, hosts in self._known)

    def _authorities(self, hosts: KnownHosts) -> tuple[PublicKey, ...]:
        return (*hosts.authorities(self._name, self._known_port), *hosts.authorities(self._name, 22))

    async def check(self, key: PublicKey | Certificate) -> None:
        """Return if the server may go on.

        Raises:
            HostKeyError: it may not; says why, and what to do.
        """
        if self._trusts_any:
            return
        if isinstance(key, Certificate):
            if self._certified(key):
                return
            key = key.key  # by an authority that is not known here: it is as good as the key alone
        verdicts = [hosts.check(self._name, self._known_port, key) for _, hosts in self._known]
        shown = f"{key.key_type} {key.fingerprint()}"
        name = host_name(self._name, self._known_port)
        if "revoked" in verdicts:
            where = self._known[verdicts.index("revoked")][0]
            raise HostKeyError(
                f"the host key of {name} ({shown}) is marked @revoked in {where}: it must not be used any more. "
                "Ask the host's administrator for its new key."
            )
        if "known" in verdicts:
            return
        if "changed" in verdicts:
            raise HostKeyError(self._changed(self._known[verdicts.index("changed")], name, shown))
        if self._unknown is None or not await self._unknown(UnknownHost(self._name, self._known_port, key)):
            refused = "" if self._unknown is None else " and was not accepted"
            raise HostKeyError(
                f"the host key of {name} is not known{refused}: {shown}. Compare the fingerprint with what the host's "
                f"administrator tells you, then add this line to a known_hosts file: {name} {key.line()}"
            )

    def _certified(self, certificate: Certificate) -> bool:
        """Whether the certificate makes the server known (THREATS R17); False if nothing is known of its authority."""
        name = host_name(self._name, self._known_port)
        both = (certificate.key, certificate.authority)
        if any(
            hosts.check(self._name, self._known_port, each) == "revoked" for _, hosts in self._known for each in both
        ):
            raise HostKeyError(f"the certificate of {name}, or its authority's key, is marked @revoked")
        if not any(certificate.authority in self._authorities(hosts) for _, hosts in self._known):
            return False
        now = time.time()
        reason = ""
        try:
            certificate.verify_signature()
        except KeyFormatError as error:
            reason = str(error)
        if certificate.kind != "host":
            reason = "it is a user's"
        elif certificate.critical_options:
            reason = f"its option {certificate.critical_options[0][0]!r} is not known"
        elif not any(matches(each, self._name.lower()) for each in certificate.principals):  # patterns, as ssh has it
            reason = f"it is for {', '.join(certificate.principals) or 'nobody'}"
        elif not certificate.valid_after <= now < certificate.valid_before:
            reason = "it is not valid at this time"
        if reason:
            raise HostKeyError(f"the certificate of {name} ({certificate.key_id!r}) cannot be used: {reason}")
        return True

    def _changed(self, where: tuple[str, KnownHosts], name: str, shown: str) -> str:
        path, hosts = where
        names = (name, host_name(self._name, 22))
        entry = next(entry for name in names for entry in hosts.entries if not entry.marker and entry.matches(name))
        place = f"{path}:{entry.line}" if entry.line else path
        return (
            f"the host key of {name} has changed: it shows {shown}, but {place} has {entry.key.key_type} "
            f"{entry.key.fingerprint()}. Somebody may be listening in, or the host has a new key. If its administrator "
            f"confirms the new fingerprint, remove that line (ssh-keygen -R '{name}' -f '{path}') and connect again."
        )


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=path) from error
    if len(data) > _LARGEST:
        raise ConfigError("is larger than 64 MiB", path=path)
    return data.decode(errors="replace")
