"""What options mean to dunnart's client: the arguments of `dunnart.client.connect` that lead to a host."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dunnart.client.connecting import CLIENT_LIMITS
from dunnart.client.host_keys import TrustAnyHostKey
from dunnart.client.login import METHODS
from dunnart.crypto.profiles import KNOWN, PROFILES, Algorithms, edit
from dunnart.errors import ConfigError
from dunnart.tools.ssh.configuration import listed
from dunnart.tools.transfer.questions import LoginQuestions

if TYPE_CHECKING:
    from dunnart.keys.certificate import Certificate
    from dunnart.tools.ssh.options import Options
    from dunnart.tools.transfer.foreground import Foreground

_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_STRICT = ("yes", "true", "ask", "accept-new", "no", "off", "false")
_TRUSTING = frozenset(("accept-new", "no", "off", "false"))
_LISTS = {
    "kexalgorithms": "kex", "hostkeyalgorithms": "host_key", "ciphers": "ciphers", "macs": "macs",
    "pubkeyacceptedalgorithms": "user_key",
}  # fmt: skip
_FOREIGN = (
    "sntrup761*,mlkem1024*,mlkem768nistp256*,gss-*,umac-*,hmac-md5*,hmac-sha1-96*,hmac-ripemd160*,rijndael-cbc@*,"
    "arcfour*,blowfish-cbc,cast128-cbc,sk-*,webauthn-*,ssh-dss*,ssh-xmss*,ssh-rsa*,3des-cbc,aes*-cbc"
)
"""Algorithms that versions of OpenSSH have, as patterns."""
_REKEY_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
QUIET = ("quiet", "fatal", "error")
"""The levels of LogLevel at which nothing is told that is no error."""


def client_arguments(options: Options, front: Foreground) -> dict[str, Any]:
    """Give the arguments.

    Args:
        options: for the host.
        front: where the person is who may be asked.

    Raises:
        ConfigError: a value is wrong, or a file cannot be used.
    """
    batch = options.flag("batchmode", default=False)
    strict = options.choice("stricthostkeychecking", "ask", _STRICT)
    trust = strict in _TRUSTING
    public_keys = options.flag("pubkeyauthentication", default=True)
    known = [options.path(each) for each in options.words("userknownhostsfile", _USER_KNOWN_HOSTS)]
    system = [options.path(each) for each in options.words("globalknownhostsfile", _SYSTEM_KNOWN_HOSTS)]
    quiet = options.text("loglevel", "info").lower() in QUIET
    questions = LoginQuestions(
        front, options.user, options.name, remember="" if known[0] == "none" else known[0], trust=trust,
        hashed=options.flag("hashknownhosts", default=False), quiet=quiet,
    )  # fmt: skip
    address = options.text("bindaddress", "")
    return {
        "host": options.host,
        "port": options.port,
        "user": options.user,
        "keys": _keys(options) if public_keys else [],
        "agent": _agent(options) if public_keys else False,
        "identities_only": options.flag("identitiesonly", default=False),
        "methods": _methods(options, public_keys=public_keys),
        "asks": options.number("numberofpasswordprompts", 3, least=1),
        "password": None if batch else questions.password,
        "prompt": None if batch else questions.prompt,
        "passphrase": None if batch else questions.passphrase,
        "banner": None if quiet else questions.banner,
        "known_hosts": [path for path in (*known, *system) if path != "none"],
        "unknown_host": questions.unknown_host if trust or (strict == "ask" and not batch) else None,
        "host_key_alias": options.text("hostkeyalias", "") or None,
        "algorithms": algorithms(options),
        "limits": _limits(options),
        "connect_seconds": float(options.seconds("connecttimeout", 30) or 30),
        "family": _FAMILIES[options.choice("addressfamily", "any", _FAMILIES)],
        "bind": (address, 0) if address else None,
    }


def without_checks(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same with any host key taken (`dbclient -yy`)."""
    return arguments | {"known_hosts": TrustAnyHostKey()}


def algorithms(options: Options) -> Algorithms:
    """The algorithms to offer: the default profile, with the edits of + - ^ lists."""
    found = PROFILES["default"]
    for name, field in _LISTS.items():
        known = getattr(KNOWN, field)
        value = _without_foreign(options.text(name, ""), known)
        if value:
            try:
                found = replace(found, **{field: edit(getattr(found, field), value, known, name)})
            except ConfigError as error:
                options.fail(name, str(error).removeprefix(f"{name}: "))
        elif options.given(name) and options.text(name, "")[0] not in "+-^":
            options.fail(name, "none of these algorithms can be had here")
    if options.flag("compression", default=False):
        found = replace(found, compression=("zlib@openssh.com", "none"))
    return found


def _without_foreign(value: str, known: tuple[str, ...]) -> str:
    """Leave out what OpenSSH has and dunnart has not: lists of a whole system name all that is allowed there."""
    sign = value[:1] if value[:1] in {"+", "-", "^"} else ""
    names = [name.strip() for name in value.removeprefix(sign).split(",")]
    kept = [name for name in names if name in known or not listed(_FOREIGN, name)]
    return sign + ",".join(kept) if kept else ""


def _methods(options: Options, *, public_keys: bool) -> tuple[str, ...]:
    allowed = {
        "publickey": public_keys,
        "keyboard-interactive": options.flag("kbdinteractiveauthentication", default=True),
        "password": options.flag("passwordauthentication", default=True),
    }
    wanted = options.text("preferredauthentications", ",".join(METHODS)).split(",")
    return tuple(name for name in wanted if allowed.get(name, False))


def _agent(options: Options) -> bool | str:
    text = options.text("identityagent", "SSH_AUTH_SOCK")
    if text.lower() == "none":
        return False
    if text == "SSH_AUTH_SOCK":
        return True
    if text.startswith("$") and not text.startswith("${"):
        return os.environ.get(text[1:], "") or False
    return options.path(text)


def _keys(options: Options) -> list[str | Certificate] | None:
    """The keys that are named and there, with the certificates; None for those that ssh makes."""
    paths = [options.path(words[0]) for words in options.all("identityfile")]
    certificates: list[Certificate] = []
    for words in options.all("certificatefile"):
        from dunnart.keys.files import read_certificate

        path = options.path(words[0])
        if os.path.exists(path):
            certificates.append(read_certificate(path, key="certificatefile"))
    if not paths:
        from dunnart.client.login import DEFAULT_KEYS

        if not certificates:
            return None
        paths = [path for each in DEFAULT_KEYS if os.path.exists(path := os.path.expanduser(each))]
    there = [path for path in paths if os.path.exists(path) or os.path.exists(f"{path}.pub")]
    return [*there, *certificates]


def missing_keys(options: Options) -> list[str]:
    """The named key files that are not there."""
    paths = [options.path(words[0]) for words in options.all("identityfile") if words[0] != "none"]
    return [path for path in paths if not (os.path.exists(path) or os.path.exists(f"{path}.pub"))]


def _limits(options: Options) -> Any:  # noqa: ANN401 - replace of a frozen dataclass
    """Bounds on time: a person may take as long for a password as the server allows."""
    seconds = float(options.seconds("connecttimeout", 30) or 30)
    found = replace(
        CLIENT_LIMITS, login_grace_seconds=0.0, identification_seconds=seconds,
        keepalive_seconds=float(options.seconds("serveraliveinterval", 0)),
        keepalive_count_max=options.number("serveralivecountmax", 3, least=1),
    )  # fmt: skip
    words = options.words("rekeylimit")
    if not words:
        return found
    size = words[0].lower()
    if size not in {"default", "none"}:
        unit = size[-1] if size[-1] in _REKEY_UNITS else ""
        number = size.removesuffix(unit)
        if not number.isdecimal() or len(number) > 12:
            options.fail("rekeylimit", f"{words[0]!r} is no size such as 500M or 1G")
        found = replace(found, rekey_bytes=int(number) * _REKEY_UNITS[unit])
    if len(words) > 1 and words[1].lower() != "none":
        found = replace(found, rekey_seconds=float(options.time("rekeylimit", words[1])))
    return found


def environment(options: Options) -> dict[str, str]:
    """The variables that a session is to have: those of SetEnv, and those of ours that SendEnv names."""
    patterns = [pattern for words in options.all("sendenv") for pattern in words]
    wanted = ",".join(pattern for pattern in patterns if not pattern.startswith("-"))
    unwanted = ",".join(pattern[1:] for pattern in patterns if pattern.startswith("-"))
    found = {name: value for name, value in os.environ.items() if listed(wanted, name) and not listed(unwanted, name)}
    said: dict[str, str] = {}
    for word in options.words("setenv"):
        name, equals, value = word.partition("=")
        if not equals or not name:
            options.fail("setenv", f"{word!r} is not NAME=VALUE")
        said.setdefault(name, value)
    return found | said
