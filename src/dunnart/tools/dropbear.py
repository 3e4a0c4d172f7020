"""`dunnart dropbear`: the server, started as Dropbear's is, with its flags, files and exit statuses."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from dunnart.daemon import dropbear_flags
from dunnart.daemon.dropbear_flags import KINDS, DropbearFlags, Kind, WrongFlag
from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunnart.daemon.config import ServeConfig

USAGE = """\
usage: dropbear [-aBeEFgijkmRstvwz] [-b FILE] [-c COMMAND] [-D FOLDER] [-G GROUP] [-I SECONDS] [-K SECONDS]
                [-l INTERFACE] [-M SECONDS] [-P FILE] [-p [ADDRESS:]PORT] [-r FILE] [-T TRIES] [-W BYTES]
       dropbear -Q kex|sig|cipher|mac|compress|help

  -a         clients may have forwarded ports listened on for others     -b FILE       shown before the login
  -B         empty passwords may be right                                -c COMMAND    what all sessions run
  -e         sessions get the environment of the server                  -D FOLDER     with authorized_keys; ~/.ssh
  -E         log to standard error and not to syslog                     -G GROUP      only its members may log in
  -F         stay in the foreground                                      -I SECONDS    of idleness that end a connection
  -g         no password for root                                        -K SECONDS    of silence: ask for a sign
  -i         started by inetd                                            -l INTERFACE  listen on it alone
  -j, -k     no forwarding to hosts, no listening for clients            -M SECONDS    that a connection may last
  -m         no message of the day                                       -P FILE       the process's number
  -R         make host keys that are missing                             -p PORT       [ADDRESS:]PORT, repeatable; 22
  -s         no passwords                                                -r FILE       a host key, repeatable
  -t         a password and a key both                                   -T TRIES      failed logins; 10
  -v         log more                                                    -W BYTES      the window of a channel
  -w         root may not log in                                         -Q LIST       print a list of algorithms
  -z         no quality of service, of which there is none anyway        -V            print the version

Host keys, if -r names none: /etc/dropbear/dropbear_rsa_host_key, …_ecdsa_host_key and …_ed25519_host_key.
"""
_RSA_BITS = 2048
_ALGORITHMS = {"kex": "kex", "sig": "host_key", "cipher": "ciphers", "mac": "macs", "compress": "compression"}


def run(arguments: Sequence[str]) -> int:
    """Serve; gives the exit status: 0, or 1 when something is wrong with a flag or with what it names."""
    from dunnart.tools.main import without_tls

    without_tls()
    handed = None
    try:
        asked = _asked(arguments)
        if asked is not None:
            return asked
        if any(flag == "i" for flag, _ in dropbear_flags.pairs(arguments)):
            from dunnart.daemon.handed import by_inetd

            handed = by_inetd()  # before anything is printed, which would go to the client
        try:
            config = configuration(arguments)
        except ConfigError as error:
            if handed is not None:  # perhaps nobody reads standard error
                from dunnart.daemon.serve import log_failure

                log_failure(error)
            raise
        from dunnart.daemon.serve import run as serve

        # Dropbear says nothing there.
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            return serve(config, handed, lambda: configuration(arguments))
    except ConfigError as error:
        print(f"dropbear: {error}", file=sys.stderr)
        if isinstance(error, WrongFlag):
            print(USAGE, end="", file=sys.stderr)
        return 1


def configuration(arguments: Sequence[str]) -> ServeConfig:
    """Give the configuration that a command line means; with -R, missing host keys are made.

    Raises:
        ConfigError: something in it is wrong.
    """
    from dunnart.daemon.loading import load

    given = dropbear_flags.translate(arguments, root=os.geteuid() == 0, environment=os.environ)
    for note in given.notes:
        print(f"dropbear: {note}", file=sys.stderr)
    return load(None, {**given.options, "host_key": _host_keys(given)})


def imported(arguments: Sequence[str]) -> tuple[ServeConfig, Sequence[str]]:
    """Give the configuration that a command line means for root's server, and what is to be known of it.

    Raises:
        ConfigError: something in it is wrong.
    """
    from dunnart.daemon.loading import load

    given = dropbear_flags.translate(arguments, root=True, environment={})
    notes = [*given.notes]
    flags = {flag for flag, _ in dropbear_flags.pairs(arguments)}
    if "e" in flags:
        notes.append("-e: sessions get no environment of the server's; name variables in [set_env]")
    if given.makes_keys:
        files = given.options["host_key"]
        notes.append("-R: " + ("only the host keys that are there are named" if files else "keys go to state_folder"))
    return load(None, given.options), notes


def _asked(arguments: Sequence[str]) -> int | None:
    """Print what -h, -V or -Q ask for, and give the exit status; None: a server is wanted."""
    query = None
    if [*arguments] == ["--help"]:
        print(USAGE, end="")
        return 0
    for flag, value in dropbear_flags.pairs(arguments):
        if flag == "h":
            print(USAGE, end="", file=sys.stderr)
            return 0
        if flag == "V":
            from dunnart.tools.main import version

            print(f"dunnart {version()}, in the place of Dropbear", file=sys.stderr)
            return 0
        if flag == "Q":
            query = value
    if query is None:
        return None
    if query not in _ALGORITHMS:
        print(*_ALGORITHMS, sep="\n")
        if query != "help":
            print(f"dropbear: -Q: there is no list {query!r}", file=sys.stderr)
        return int(query != "help")
    from dunnart.crypto.profiles import PROFILES

    print(*getattr(PROFILES["default"], _ALGORITHMS[query]), sep="\n")
    return 0


def _host_keys(given: DropbearFlags) -> list[str]:
    """Give the files of the host keys, of which no two may be of one type, and make those that -R asks for.

    Dropbear makes a key when a client wants it, which early in a system's life could mean a better one. Here they are
    made at once: the system's generator does not give numbers before it can.
    """
    files = given.options["host_key"]
    assert isinstance(files, list)
    missing = [kind for kind in KINDS if dropbear_flags.default_host_key(kind) not in files]
    if given.names_keys and (len(files) > 1 or given.makes_keys):
        kinds = _kinds(files)
        missing = [kind for kind in missing if not any(kind in each for each in kinds)]
    return [*files, *_made(missing, there=bool(files))] if given.makes_keys else files


def _kinds(files: Sequence[str]) -> list[str]:
    from dunnart.keys.files import read_private_key

    found: dict[str, str] = {}
    for file in files:
        kind = read_private_key(file, key="-r").public.key_type
        if kind in found:
            raise ConfigError(f"-r: {found[kind]} and {file} are both of type {kind}; only one can be used")
        found[kind] = file
    return [*found]


def _made(kinds: Sequence[Kind], *, there: bool) -> list[str]:
    """Make host keys of these types. If there is one of another type, it does not matter that they cannot be made."""
    from functools import partial

    from dunnart.daemon.host_keys import prepare_folder
    from dunnart.keys.files import read_or_make_private_key

    made = []
    for kind in kinds:
        path = dropbear_flags.default_host_key(kind)
        try:
            prepare_folder(dropbear_flags.FOLDER)
            read_or_make_private_key(path, kind, partial(_new, kind))
        except ConfigError as error:
            said = f"-R: {str(error).replace('state_folder: ', '')}"  # of which Dropbear knows nothing
            if not there:
                raise ConfigError(said) from error
            print(f"dropbear: {said}", file=sys.stderr)
            break
        made.append(path)
    return made


def _new(kind: Kind) -> bytes:
    from dunnart.keys.dropbear import to_dropbear
    from dunnart.keys.private import PrivateKey

    return to_dropbear(PrivateKey.generate(kind, _RSA_BITS if kind == "rsa" else None))
