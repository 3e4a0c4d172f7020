"""Everything that the server needs before it listens, read and made from the configuration."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import field
from typing import TYPE_CHECKING

from dunnart.daemon import plugins, rules
from dunnart.daemon.host_keys import load_host_certificates, load_host_keys
from dunnart.daemon.uses import AUTHORIZED_KEYS, ONE_TIME_PASSWORD
from dunnart.daemon.ways_in import anyone_has_key, new_password, this_user
from dunnart.errors import ConfigError
from dunnart.records import dataclass
from dunnart.runtime.admission import Admission

if TYPE_CHECKING:
    from dunnart.crypto.profiles import Algorithms
    from dunnart.daemon.config import ServeConfig
    from dunnart.daemon.plugins import Plugins
    from dunnart.keys.certificate import Certificate
    from dunnart.keys.private import PrivateKey

_LOG = logging.getLogger("dunnart.daemon")
_LARGEST_BANNER = 16 << 10  # one message, before any login


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the server is started with: the configuration, and all that had to be read or made for it."""

    config: ServeConfig
    algorithms: Algorithms
    host_keys: tuple[PrivateKey, ...]
    host_certificates: tuple[Certificate, ...]
    admission: Admission
    user: str
    """Who runs this process; the only one who can log in, unless it is root."""
    one_time_password: str | None = field(repr=False)
    """Lets `user`, and nobody else, in as long as this process runs; None: there is no such password."""
    way_in: bool
    """Somebody can log in."""
    plugins: Plugins = field(repr=False)
    banner: str = ""


def prepare(config: ServeConfig, before: Prepared | None = None, *, make: bool = True) -> Prepared:
    """Read and make everything that the server needs before it listens.

    Args:
        config: the configuration.
        before: what a server that runs has; its password for this run, and what it knows of clients, stay.
        make: make host keys that are missing in the state folder.

    Raises:
        ConfigError: something configured cannot be used.
    """
    if not config.listen:
        raise ConfigError("there is no address to listen on", key="listen")
    algorithms = rules.algorithms_of_all(config)
    host_keys = load_host_keys(config.host_key, config.host_key_types, config.state_folder, make=make)
    for key in host_keys:
        if 0 < key.public.rsa_bits < config.required_rsa_size:
            raise config.source.error(f"a host key has {key.public.rsa_bits} bits", "required_rsa_size")
    certificates = load_host_certificates(config.host_certificate, host_keys)
    usable = {name for key in host_keys for name in key.signature_algorithms} & set(algorithms.host_key)
    if not usable:
        raise ConfigError(
            f"no host key can make one of the signatures that are offered: {', '.join(algorithms.host_key)}",
            key="host_key" if config.host_key else "host_key_types",
        )
    user = this_user()
    password, way_in = _way_in(config, root=sys.platform != "win32" and os.geteuid() == 0)
    if before is not None and None not in {password, before.one_time_password}:
        password = before.one_time_password
    admission = _admission(config) if before is None or _changed(config, before.config) else before.admission
    made = plugins.make(config, user.name, password)
    banner = read_banner(config)
    return Prepared(config, algorithms, host_keys, certificates, admission, user.name, password, way_in, made, banner)


_OF_ADMISSION = ("max_startups", "max_startups_per_source", "source_bits", "penalties", "penalty_exempt")


def _changed(config: ServeConfig, before: ServeConfig) -> bool:
    return any(getattr(config, name) != getattr(before, name) for name in _OF_ADMISSION)


def _admission(config: ServeConfig) -> Admission:
    return Admission(
        startups=config.max_startups,
        per_source=config.max_startups_per_source,
        source_bits=config.source_bits,
        penalties=config.penalties,
        exempt=config.penalty_exempt,
        random=_random,
    )


def read_banner(config: ServeConfig) -> str:
    """Read the text that clients are shown before they log in; "" for none.

    Raises:
        ConfigError: the file cannot be read, or is too large.
    """
    if not config.banner:
        return ""
    from dunnart.keys.files import read_regular

    try:
        return read_regular(config.banner, _LARGEST_BANNER)[1].decode(errors="replace")
    except OSError as error:
        raise config.source.error(f"cannot be read: {error.strerror}", "banner") from error


def _way_in(config: ServeConfig, *, root: bool) -> tuple[str | None, bool]:
    """Make the password for this run, if it is wanted and would let its user in; tell whether anybody can log in."""
    if config.authenticators:
        _see_that_keys_are_asked(config)
    methods = {method for chain in config.methods for method in chain.split(",")}
    # "no" is for every method. "prohibit-password" is against passwords that can be guessed; this one cannot.
    refused = root and config.permit_root_login in {"no", plugins.FORCED}
    usable = (not methods or "password" in methods) and not refused
    if ONE_TIME_PASSWORD in config.authenticators and config.password == "off":  # noqa: S105 - the option's value
        raise ConfigError(f"authenticators names {ONE_TIME_PASSWORD}", key="password")
    if ONE_TIME_PASSWORD in config.authenticators or config.password == "one-time":  # noqa: S105 - the option's value
        if not usable:
            raise ConfigError("methods or permit_root_login rules out the one-time password", key="password")
        return new_password(), True
    if config.authenticators:  # what they are good for they know themselves
        return None, True
    by_key = (not methods or "publickey" in methods) and (
        bool(config.key_sources or config.authorized_keys_command or config.trusted_user_ca_keys)
        or anyone_has_key(
            config.authorized_keys, strict_modes=config.strict_modes, variables=config.permit_user_environment
        )
    )
    asked_for = "password" in methods  # a chain that names it cannot do without
    if config.password == "auto" and usable and (asked_for or not by_key):  # noqa: S105 - the option's value
        return new_password(), True
    if asked_for:
        raise ConfigError('a chain wants a password, but password = "off" allows none', key="methods")
    if not by_key:
        _LOG.warning("nobody can log in yet: there are no authorized keys, and no password is allowed")
    return None, by_key


def _see_that_keys_are_asked(config: ServeConfig) -> None:
    """What is to let keys in, or keep them out, must not be there for nothing."""
    if AUTHORIZED_KEYS not in config.authenticators:
        for name in ("trusted_user_ca_keys", "authorized_keys_command", "key_sources"):
            if getattr(config, name):
                message = f"it is not asked: authenticators names no {AUTHORIZED_KEYS}"
                raise config.source.error(message, name)


def _random() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32
