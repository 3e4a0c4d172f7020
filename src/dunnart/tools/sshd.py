"""`sshd`: the server with the command line and the configuration of OpenSSH's.

What sshd checks is checked in its order, and ends with its exit status: 255 for a configuration that cannot be used, 1
for a wrong command line, a file that is not there, or a server without host keys.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from dunnart.daemon.config import ServeConfig
    from dunnart.daemon.handed import Handed
    from dunnart.daemon.sshd_config.reading import Directives

USAGE = """\
usage: sshd [-46DdeGiqTtV] [-C connection_spec] [-c host_cert_file]
            [-E log_file] [-f config_file] [-g login_grace_time]
            [-h host_key_file] [-o option] [-p port] [-u len]
"""
CONFIGURATION = "/etc/ssh/sshd_config"
_SWITCHES = frozenset("46DGQRTdeiqrtV")
_VALUED = frozenset("CEbcfghkopu")


class WrongFlag(Exception):
    """There is no such flag, or its value is missing: sshd prints its usage then."""


class Flags:
    """What the command line says, but for what is a keyword of the configuration as well."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = arguments
        self.file = CONFIGURATION
        self.log_file = ""
        self.log_to_errors = False
        self.debug = 0
        self.quiet = False
        self.foreground = False
        self.inetd = False
        self.test = False
        self.report = False
        self.report_only = False
        self.connection: list[str] = []
        self.extra = ""

    def say(self, lines: Sequence[str]) -> None:
        """Print lines on standard error, but for -q."""
        if not self.quiet:
            print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)

    def take(self, flag: str, value: str) -> None:
        """Take a flag."""
        match flag:
            case "":
                self.extra = value
            case "f":
                self.file = value
            case "E":
                self.log_file = value
            case "C":
                self.connection.append(value)
            case "d":
                self.debug += 1
            case _:
                if flag in _SET:
                    setattr(self, _SET[flag], True)


_SET = {"e": "log_to_errors", "q": "quiet", "D": "foreground", "i": "inetd", "t": "test", "T": "report",
        "G": "report_only"}  # fmt: skip


def run(arguments: Sequence[str]) -> int:
    """Run the program; gives the exit status."""
    flags = Flags(arguments)
    handed = None
    try:
        given = {flag for flag, _ in _pairs(arguments)}
        if "i" in given and not given & {*"tTGV"}:
            from dunnart.daemon.handed import by_inetd

            # Before anything is printed, which would go to the client, or loaded, for which it would wait.
            handed = by_inetd()
        return _serve_or_test(flags, handed)
    except WrongFlag as error:
        if str(error):
            print(error, file=sys.stderr)
        else:
            _tell_version()
            print(USAGE, end="", file=sys.stderr)
        return 1
    except ConfigError as error:
        flags.say([str(error)])
        if handed is not None:
            from dunnart.daemon.serve import log_failure

            log_failure(error, "syslog")
        return getattr(error, "status", 255)


def _tell_version() -> None:
    from dunnart.tools.main import version

    print(f"dunnart {version()}", file=sys.stderr)


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give each flag with its value, and the first argument that is none with "" before it."""
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--" or not word.startswith("-") or word == "-":
            left = rest if word == "--" else [word]
            if left:
                yield "", left[0]
            return
        for at, flag in enumerate(word[1:], 2):
            if flag in _SWITCHES:
                yield flag, ""
                continue
            if flag not in _VALUED or (at == len(word) and not rest):
                raise WrongFlag
            yield flag, word[at:] or rest.pop(0)
            break


def _read_flags(arguments: Sequence[str], flags: Flags, directives: Directives) -> bool:
    """Read the command line; tells whether only the version is asked for.

    Raises:
        WrongFlag: it is none of sshd's.
        ConfigError: a value cannot be used.
    """
    from dunnart.daemon.sshd_config import lexer
    from dunnart.daemon.sshd_config.reading import Unusable

    for flag, value in _pairs(arguments):
        match flag:
            case "V":
                return True
            case "4" | "6":
                directives.add_flag("AddressFamily", "inet" if flag == "4" else "inet6")
            case "c" | "h":
                directives.add_flag("HostKey" if flag == "h" else "HostCertificate", lexer.joined([value]))
            case "g":
                directives.add_flag("LoginGraceTime", value)
            case "p":
                directives.ports_are_known = False
                directives.add_flag("Port", value)
                directives.ports_are_known = True
            case "o":
                directives.add_option(value)
            case "R":
                raise Unusable(["-R not supported here"])
            case _:
                flags.take(flag, value)
    if flags.quiet or flags.debug:
        level = "QUIET" if flags.quiet else f"DEBUG{min(flags.debug, 3)}"
        directives.add_flag("LogLevel", level, first=True)
    return False


def _serve_or_test(flags: Flags, handed: Handed | None) -> int:
    from dunnart.daemon.sshd_config.reading import Directives, Unusable

    directives = Directives()
    if _read_flags(flags.arguments, flags, directives):
        _tell_version()
        return 0
    if flags.connection and not flags.report:
        raise Unusable(["Config test connection parameter (-C) provided without test mode (-T)"])
    if flags.file.lower() != "none":
        directives.add_file(flags.file)
    flags.say(directives.notes)
    if flags.extra:
        raise Unusable([f"Extra argument {flags.extra}."], 1)
    if flags.report_only:
        return _report(flags, directives)
    try:
        config = _config(flags, directives)
    except ConfigError as error:
        # What it means can be seen even if it cannot be served; without host keys sshd says nothing.
        if flags.report and not (isinstance(error, Unusable) and error.status == 1):
            _report(flags, directives)
        raise
    if flags.report:
        return _report(flags, directives)
    if flags.test:
        from dataclasses import replace

        from dunnart.daemon.checking import check

        check(replace(config, pid_file=""))  # sshd's -t does not look where that would be
        return 0
    return _serve(config, flags, handed)


def _report(flags: Flags, directives: Directives) -> int:
    from dunnart.daemon.sshd_config.conditions import Connection, groups_of
    from dunnart.daemon.sshd_config.effective import settings
    from dunnart.daemon.sshd_config.lexer import Refused
    from dunnart.daemon.sshd_config.reading import Unusable
    from dunnart.daemon.sshd_config.report import report
    from dunnart.daemon.sshd_config.translate import effective_algorithms

    try:
        connection = Connection.of(",".join(flags.connection), groups_of)
    except Refused as error:
        raise Unusable([str(error)], 1) from error
    found = settings(directives.found, lambda chain: all(each.meets(connection) for each in chain))
    try:
        print(report(found, effective_algorithms(found)), end="")
    except OSError as error:
        raise Unusable([f"bad addr or host: {error.strerror}"]) from error
    return 0


def _config(flags: Flags, directives: Directives) -> ServeConfig:
    """Make the configuration, with the host keys that can be used.

    Raises:
        ConfigError: it cannot be served.
    """
    from dataclasses import replace

    from dunnart.daemon.sshd_config.configuration import configuration, this_machine

    made = configuration(directives.found, this_machine())
    flags.say(made.notes)
    config = replace(made.config, host_key=_host_keys(made.config, flags), **_starting(flags))
    missing = [path for path in (*config.host_certificate, config.banner) if path and not os.access(path, os.R_OK)]
    flags.say([f"Unable to load {path}" for path in missing])
    there = tuple(path for path in config.host_certificate if path not in missing)
    return replace(config, host_certificate=there, banner="" if config.banner in missing else config.banner)


def _host_keys(config: ServeConfig, flags: Flags) -> tuple[str, ...]:
    """Give the files that hold host keys; those that are not there are named and left out, as sshd does.

    They are read when the server is prepared.

    Raises:
        Unusable: none is left.
    """
    from dunnart.daemon.sshd_config.reading import Unusable

    usable = tuple(path for path in config.host_key if os.access(path, os.R_OK))
    missing = [path for path in config.host_key if path not in usable]
    flags.say([f"Unable to load host key: {path}{_hidden(path)}" for path in missing])
    if not usable:
        raise Unusable(["sshd: no hostkeys available -- exiting."], 1)
    return usable


def _hidden(path: str) -> str:
    return ": Permission denied" if os.path.exists(path) else ""


def _starting(flags: Flags) -> dict[str, Any]:
    """Give the options that say how the server starts."""
    errors = flags.log_to_errors or (flags.debug and not flags.inetd)
    found: dict[str, Any] = {
        "inetd": flags.inetd,
        "background": not (flags.foreground or flags.inetd or flags.debug),
        # The machine's sshd can be asked by `dunnart status`; one with a configuration of its own beside it is silent.
        "control_socket": "auto" if flags.file == CONFIGURATION else "off",
    }
    if flags.log_file or errors:
        found["log_to"] = os.path.abspath(flags.log_file) if flags.log_file else "stderr"
    return found | ({"pid_file": ""} if flags.debug or flags.inetd else {})


def _serve(config: ServeConfig, flags: Flags, handed: Handed | None) -> int:
    from dunnart.daemon.serve import run as serve
    from dunnart.tools.main import without_tls

    without_tls()
    if handed is None:  # sshd prints nothing there
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    if flags.debug and handed is None:
        handed = _first_connection(config, flags)
    return serve(config, handed, lambda: _again(flags.arguments))


def _again(arguments: Sequence[str]) -> ServeConfig:
    """Make the configuration anew.

    Raises:
        ConfigError: it cannot be served.
    """
    from dunnart.daemon.sshd_config.reading import Directives

    directives = Directives()
    flags = Flags(arguments)
    _read_flags(arguments, flags, directives)
    flags.quiet = True  # what is left out was said at the start
    if flags.file.lower() != "none":
        directives.add_file(flags.file)
    return _config(flags, directives)


def _first_connection(config: ServeConfig, flags: Flags) -> Handed:
    """Wait for a connection, which with -d is the only one that is served.

    Raises:
        ConfigError: an address cannot be listened on.
    """
    import select

    from dunnart.daemon.handed import Handed
    from dunnart.runtime.listeners import listen

    listeners = [each for address in config.listen for each in listen(address)]
    flags.say([f"Server listening on {address}." for address in config.listen])
    ready, _, _ = select.select(listeners, [], [])
    connection, _ = ready[0].accept()
    for each in listeners:
        each.close()
    return Handed([connection])
