"""`dunnart authorized-keys check`: what each line of a file allows, and whether it would let a login in."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dunnart.daemon.ways_in import this_user
from dunnart.errors import ConfigError, KeyFormatError
from dunnart.keys import AuthorizedKeys, PublicKey, strict_modes_reason
from dunnart.keys.authorized_keys import FILE_BYTES_MAX, parse
from dunnart.keys.key_options import read_time, shown_time
from dunnart.keys.patterns import AddressPatterns
from dunnart.keys.rights import EVERYTHING
from dunnart.records import dataclass
from dunnart.tools.terminal import shown

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from dunnart.keys import AuthorizedKey, Rights
    from dunnart.keys.key_options import KeyOptions

_FORBIDDEN = (
    ("pty", "terminal"), ("port_forwarding", "port forwarding"), ("agent_forwarding", "agent forwarding"),
    ("x11_forwarding", "X11 forwarding"), ("user_rc", "~/.ssh/rc"),
)  # fmt: skip
_INDENT = " " * 10
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Login:
    """The login that is asked about.

    Attributes:
        user: its name; `uid` and `home` are the account's.
        address: where it comes from, "" if that was not said.
        at: when, in seconds since 1970.
        key: what it has; None: any of the keys.
    """

    user: str
    uid: int
    home: str
    address: str
    at: float
    key: PublicKey | None

    def refusal(self, terms: KeyOptions) -> str:
        """Say why a line's terms do not let it in, or ""."""
        if not self.address and terms.addresses is not None:
            return terms.refusal("", self.at) if terms.expired(self.at) else ""
        return terms.refusal(self.address, self.at)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file. The names are those of the JSON.

    Attributes:
        number: from 1; 0 stands for the whole file.
        key: the key's type and fingerprint; "" if there is none that is understood.
        comment: the rest of the line.
        allows: what a login with the key may do, in words.
        text: how the line begins, where it is not understood.
        dead: why the line lets nobody in, or None.
        refused: why it would not let this login in, or None.
    """

    number: int
    key: str
    comment: str
    allows: tuple[str, ...]
    text: str
    dead: str | None
    refused: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. The names are those of the JSON.

    Attributes:
        file: its name.
        problem: why the file as a whole would not be believed (strict_modes), or None.
        lines: all of them that are no comment, in order.
        login: who is asked about, in words.
        let_in_by: the number of the line that lets the login in; None: it is not let in.
    """

    file: str
    problem: str | None
    lines: tuple[Line, ...]
    login: str
    let_in_by: int | None


def run(arguments: Sequence[str]) -> int:
    """Check a file; give 0 if all is well with it and the login is let in, else 1."""
    given = _parser().parse_args(list(arguments))
    login = _login(given)
    report = examine(given.file, login, given.permit_user_environment, strict_modes=given.strict_modes)
    if given.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print("\n".join(_as_text(report)))
    wrong = report.problem is not None or any(line.dead is not None for line in report.lines)
    return 1 if report.let_in_by is None or (wrong and login.key is None) else 0


def examine(path: str, login: Login, variables: Sequence[str] = (), *, strict_modes: bool = True) -> Report:
    """Look at a file as a login would meet it.

    Args:
        path: the file.
        login: the login.
        variables: patterns of the names that environment= may set.
        strict_modes: the file, and the folders above it, must be nobody else's to write.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(error.strerror or "cannot be read", path=path) from error
    problem = strict_modes_reason(os.path.abspath(path), login.uid, login.home) if strict_modes else None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError("the file is over 1 MiB", path=path)
    keys = parse(data, path, variables=variables)
    lines = tuple(_lines(keys, data, login))
    if login.key is not None:
        entry = keys.decide(login.key, login.address, login.at).entry if login.address else _first(keys, login)
        let_in_by = None if entry is None else entry.line
    else:
        let_in_by = next((line.number for line in lines if line.dead is None and line.refused is None), None)
    return Report(path, problem, lines, _described(login), None if problem else let_in_by)


def _first(keys: AuthorizedKeys, login: Login) -> AuthorizedKey | None:
    assert login.key is not None
    return next((entry for entry in keys.find(login.key) if not login.refusal(entry.terms)), None)


def _lines(keys: AuthorizedKeys, data: bytes, login: Login) -> Iterator[Line]:
    texts = data.decode(errors="replace").split("\n")
    found: dict[int, Line] = {
        number: Line(number, "", "", (), texts[number - 1].strip()[:_SHOWN], reason, None)
        for number, reason in keys.refused
    }
    for entry in keys.entries:
        refused: str | None
        if entry.terms.authority:
            refused = "it is an authority's key, and lets in who has a certificate"
        elif login.key is not None and entry.key != login.key:
            refused = "it is another key"
        else:
            refused = login.refusal(entry.terms) or None
        what = f"{entry.key.key_type} {entry.key.fingerprint()}"
        found[entry.line] = Line(entry.line, what, entry.comment, tuple(explained(entry.terms)), "", None, refused)
    yield from (found[number] for number in sorted(found))


def explained(terms: KeyOptions) -> Iterator[str]:
    """Say in words what the terms of a line allow."""
    if terms.authority:
        names = "the user's name" if terms.principals is None else " or ".join(terms.principals)
        yield f"trusts certificates that this key has signed for {names}"
    if terms.addresses is not None:
        yield f"only from {terms.addresses.text.replace(',', ', ')}"
        if terms.addresses.names:
            yield f"note: hosts' names are not looked up, so {', '.join(terms.addresses.names)} fits nobody"
    rights = terms.rights
    if rights.expires is not None:
        yield f"until {shown_time(rights.expires)}"
    if rights.command is not None:
        yield _command(rights.command)
    yield from (f"sets {name}={value}" for name, value in rights.environment)
    forbidden = [f"no {text}" for name, text in _FORBIDDEN if not getattr(rights, name)]
    if forbidden:
        yield ", ".join(forbidden)
    yield from _permits(rights)
    if not terms.touch:
        yield "a security key need not be touched"
    if terms.verify:
        yield "a security key must have verified its user; it means nothing for other keys"
    if terms.rights == EVERYTHING and not terms.authority:
        yield "everything that the server allows"


def _command(command: bytes) -> str:
    text = command.decode(errors="replace")
    if text in {"internal-sftp", "sftp"}:
        return "nothing but SFTP"
    return f"runs {text!r}, whatever is asked for"


def _permits(rights: Rights) -> Iterator[str]:
    for permits, what in ((rights.permit_open, "connects to"), (rights.permit_listen, "listens on")):
        if permits is not None:
            places = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in permits)
            yield f"forwarding {what} {', '.join(places)} only"


def _as_text(report: Report) -> Iterator[str]:
    yield shown(report.file)
    if report.problem is not None:
        yield f"  nothing of it counts (strict_modes): {shown(report.problem)}"
    for line in report.lines:
        head = f"{line.key} {line.comment}".strip()
        yield f"  line {line.number:<4}{shown(head or line.text)}"
        if line.dead is not None:
            yield f"{_INDENT}LETS NOBODY IN: {shown(line.dead)}"
        yield from (f"{_INDENT}{shown(text)}" for text in line.allows)
        if line.refused is not None:
            yield f"{_INDENT}does not let this login in: {shown(line.refused)}"
    if report.let_in_by is None:
        yield f"{report.login}: not let in"
    else:
        yield f"{report.login}: let in by line {report.let_in_by}"


def _described(login: Login) -> str:
    address = f" from {login.address}" if login.address else ""
    key = f" with {login.key.fingerprint()}" if login.key is not None else ""
    return f"{shown(login.user)}{address}{key} at {shown_time(login.at)}"


def _login(given: Namespace) -> Login:
    user, uid, home = _account(given.user)
    address = given.address or ""
    if address and address not in AddressPatterns("*"):
        raise ConfigError(f"{address!r} is no IP address", key="--from")
    try:
        at = time.time() if given.at is None else read_time(given.at)
    except KeyFormatError as error:
        raise ConfigError(str(error), key="--at") from error
    return Login(user, uid, home, address, at, None if given.key is None else _read_key(given.key))


def _account(name: str | None) -> tuple[str, int, str]:
    if name is None:
        return this_user()
    if sys.platform != "win32":
        import pwd

        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):
            raise ConfigError(f"{name!r} is no user of this system", key="--user") from None
        return entry.pw_name, entry.pw_uid, entry.pw_dir
    else:  # noqa: RET505 - mypy knows this form
        return name, 0, os.path.expanduser(f"~{name}")


def _read_key(path: str) -> PublicKey:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return PublicKey.parse_line(file.readline(1 << 16).strip())[0]
    except OSError as error:
        raise ConfigError(error.strerror or "cannot be read", path=path) from error
    except KeyFormatError as error:
        raise ConfigError(f"{error}; the public key is wanted, as in id_ed25519.pub", path=path) from error


def _parser() -> ArgumentParser:
    from argparse import ArgumentParser

    parser = ArgumentParser("dunnart authorized-keys", description="Look at authorized_keys files.")
    commands = parser.add_subparsers(
        required=True, metavar="check", help="explain each line; --help behind it tells more"
    )
    check = commands.add_parser(
        "check", description="Explain each line of an authorized_keys file: what it allows, and whether it would let a "
        "login in. The exit status is 0 if the login is let in and, without --key, nothing is wrong with any line.",
    )  # fmt: skip
    check.add_argument("file", metavar="FILE")
    check.add_argument("--user", metavar="USER", help="whose file it is; by default who runs this")
    check.add_argument("--from", dest="address", metavar="ADDR", help="the IP address that the login comes from")
    check.add_argument("--at", metavar="TIME", help="when, as YYYYMMDD[HHMM[SS]][Z]; by default now")
    check.add_argument("--key", metavar="FILE", help="the login's public key; by default any key will do")
    check.add_argument(
        "--permit-user-environment", metavar="PATTERN", action="append", default=[],
        help="variables that environment= may set, as the server's option has them",
    )  # fmt: skip
    check.add_argument(
        "--no-strict-modes", dest="strict_modes", action="store_false",
        help="do not look at who can write the file and its folders",
    )  # fmt: skip
    check.add_argument("--json", action="store_true", help="print JSON")
    return parser
