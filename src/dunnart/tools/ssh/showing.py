"""What `dunnart ssh` prints: the options for a host (-G), and the names of algorithms (-Q)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunnart.crypto.profiles import KNOWN
from dunnart.errors import ConfigError
from dunnart.tools.ssh.keywords import USED

if TYPE_CHECKING:
    from dunnart.tools.ssh.options import Options

_LISTS = {
    "cipher": KNOWN.ciphers, "ciphers": KNOWN.ciphers, "mac": KNOWN.macs, "macs": KNOWN.macs, "kex": KNOWN.kex,
    "kexalgorithms": KNOWN.kex, "key": KNOWN.user_key, "sig": KNOWN.ca_signature, "compression": KNOWN.compression,
    "hostkeyalgorithms": KNOWN.host_key, "pubkeyacceptedalgorithms": KNOWN.user_key, "option": tuple(sorted(USED)),
}  # fmt: skip
_EACH = ("sendenv", "setenv")
"""Keywords whose words are values of their own."""


def names(what: str) -> tuple[str, ...]:
    """The algorithms of a kind.

    Raises:
        ConfigError: there is no such kind.
    """
    if what == "help":
        return tuple(_LISTS)
    if what.lower() not in _LISTS:
        raise ConfigError(f"-Q {what}: there are {', '.join(_LISTS)}")
    return _LISTS[what.lower()]


def lines(options: Options) -> list[str]:
    """The options for a host: name and value on each line; those that nobody has set are left out, but for three."""
    found = [f"host {options.name}", f"user {options.user}", f"hostname {options.host}", f"port {options.port}"]
    for name in sorted(USED - {"user", "hostname", "port"}):
        if name in _EACH:
            found += [f"{name} {word}" for words in options.all(name) for word in words]
        else:
            found += [f"{name} {' '.join(words)}" for words in options.all(name)]
    return found
