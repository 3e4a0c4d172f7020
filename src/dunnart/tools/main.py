"""The `dunnart` program: its first argument says what it does. What is not asked for is not loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

    from dunnart.daemon.config import ServeConfig

USAGE = """\
usage: dunnart COMMAND [FLAGS]

  serve            run the SSH server
  config           print the configuration that serve would have, or check it
  plugins          list the plug-ins that are installed, and what the configuration uses
  authorized-keys  explain the lines of an authorized_keys file, and whom they let in
  sftp             fetch and send files, and look after those at a server
  scp              copy files to and from servers
  ssh              a shell or a command at another machine, and forwarded connections
  dbclient         the same by Dropbear's flags
  keygen           make keys, certificates and lists of revoked keys
  passwd           set a user's password in a file of passwords
  totp             make the secret of an app that shows codes for logins
  sshd             run the SSH server by sshd's flags and sshd_config
  dropbear         run the SSH server by Dropbear's flags
  dropbearkey      make keys in Dropbear's format
  dropbearconvert  convert keys between Dropbear's, OpenSSH's, PuTTY's and PEM's formats
  sftp-server      serve SFTP on standard input and output
  status           ask the server that runs on this machine, or have it do something
  top              show its busiest connections, as they change
  version          print the version

dunnart COMMAND --help tells more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit status: 0, 1 for a failure, 2 for a wrong command line or configuration."""
    if arguments is None:
        arguments = [*applet(sys.argv[0]), *sys.argv[1:]]
    command = arguments[0] if arguments else ""
    if command in {"-h", "--help", "help"}:
        print(USAGE, end="")
        return 0
    if command in {"version", "--version", "-V"}:
        print(f"dunnart {version()}")
        return 0
    if command not in _COMMANDS and command not in _PROGRAMS:
        print(_no_command(command) if command else USAGE, file=sys.stderr)
        return 2
    try:
        done = _run(command, arguments[1:])
        sys.stdout.flush()
    except ConfigError as error:
        print(f"dunnart {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # what a shell asks next begins a line of its own
        return 130
    except BrokenPipeError:  # who reads our output has had enough, as `head` has
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains when it flushes
        return 1
    return done


def applet(path: str) -> list[str]:
    """Give the command that a program is whose path, perhaps that of a symbolic link, ends in its name; else none."""
    name = path.rpartition("/")[2]
    return [_APPLETS[name]] if name in _APPLETS else []


def applets() -> list[str]:
    """Give the names of the programs that links to this one can be."""
    return [*_APPLETS]


def _no_command(command: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(command, [*_COMMANDS, *_PROGRAMS, "version"], n=1, cutoff=0.5)
    return f"dunnart: no command {command!r}; {f'did you mean {near[0]}?' if near else 'dunnart --help lists them'}"


def _run(command: str, arguments: Sequence[str]) -> int:
    if command in _COMMANDS:
        return _COMMANDS[command](arguments)
    from importlib import import_module

    status: int = import_module(f"dunnart.tools.{_PROGRAMS[command]}").run(arguments)
    return status


def version() -> str:
    """Give the version of the installed package."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("dunnart")
    except PackageNotFoundError:
        return "unknown (not installed)"


def serve(arguments: Sequence[str]) -> int:
    """Run the server."""
    without_tls()
    handed = None
    if {"-i", "--inetd"} & {*arguments}:  # before anything is printed, which would go to the client
        from dunnart.daemon.handed import by_inetd

        handed = by_inetd()
    try:
        configuration = _load("serve", "Run the SSH server until SIGTERM or ^C.", arguments)
    except ConfigError as error:
        if handed is not None:  # perhaps nobody reads standard error
            from dunnart.daemon.serve import log_failure

            log_failure(error)
        raise
    from dunnart.daemon.serve import run

    return run(configuration, handed, lambda: _load("serve", "", arguments))


def without_tls() -> None:
    """Keep asyncio from loading `ssl`, and with it OpenSSL's TLS half: 4.5 MB that SSH has no use for.

    None in sys.modules makes the import fail, for which asyncio is prepared. A module that is loaded already stays.
    """
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment] # None is allowed at run time
    modules.setdefault("ssl", None)


def config(arguments: Sequence[str]) -> int:
    """Print the effective configuration as TOML, or with --check only say whether it can be used."""
    if arguments[:1] == ["import"]:
        from dunnart.tools import config_import

        return config_import.run(arguments[1:])
    from dunnart.tools.login_flags import split

    check = "--check" in arguments
    login, rest = split([argument for argument in arguments if argument != "--check"])
    description = (
        "Print the configuration that serve would have, as TOML. With --check, print only what is wrong. With --user, "
        "print what the match tables make of it for a login: --user NAME [--address ADDRESS] [--local-address ADDRESS] "
        "[--local-port PORT]. `dunnart config import` makes one of another server's."
    )
    configuration = _load("config", description, rest, "[--check] [--user NAME ...]")
    if login is not None:
        from dunnart.daemon.loading import effective

        configuration = effective(configuration, login)
    if check:
        from dunnart.daemon.checking import check as check_all

        check_all(configuration)
        print("the configuration is good")
    else:
        from dunnart.daemon.writing import to_toml

        print(to_toml(configuration), end="")
    return 0


def plugins(arguments: Sequence[str]) -> int:
    """List plug-ins."""
    rest = [argument for argument in arguments if argument != "--json"]
    description = (
        "List the plug-ins that are installed or that the configuration names, what names them, where they come from, "
        "and why broken ones are. With --json, as JSON."
    )
    configuration = _load("plugins", description, rest, "[--json]")
    from dunnart.tools.plugins import run

    return run(configuration, as_json="--json" in arguments)


def _load(command: str, description: str, arguments: Sequence[str], own: str = "") -> ServeConfig:
    from dunnart.daemon.loading import load

    if not arguments:  # argparse and its help texts stay unloaded
        return load()
    from dunnart.daemon.flags import parse, parser

    found, values = parse(arguments, parser(f"dunnart {command}", description, own))
    return load(found.config, values)


def top(arguments: Sequence[str]) -> int:
    """Show the busiest connections."""
    from dunnart.tools.status import run

    return run(arguments, "top")


_COMMANDS = {"serve": serve, "config": config, "plugins": plugins, "top": top}
_PROGRAMS = {
    "authorized-keys": "authorized_keys", "sftp": "sftp.program", "scp": "scp", "keygen": "keygen.program",
    "ssh": "ssh.program", "dbclient": "ssh.dbclient",
    "passwd": "passwd", "totp": "totp", "sftp-server": "sftp_server", "status": "status",
    "sshd": "sshd", "dropbear": "dropbear", "dropbearkey": "dropbearkey", "dropbearconvert": "dropbearconvert",
}  # fmt: skip
"""The modules of this package whose `run` takes the arguments and gives the exit status, by command."""
_APPLETS = {
    "dbclient": "dbclient", "dropbear": "dropbear", "dropbearconvert": "dropbearconvert", "dropbearkey": "dropbearkey",
    "scp": "scp", "sftp": "sftp", "sftp-server": "sftp-server", "ssh": "ssh", "sshd": "sshd", "ssh-keygen": "keygen",
}  # fmt: skip
"""What a symbolic link to dunnart is, by its name."""


if __name__ == "__main__":
    sys.exit(main())
