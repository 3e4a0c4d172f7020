"""What stands behind a keyword of sshd_config, read as sshd reads it: functions that make a value of a line's words.

A value is a string, a whole number, or a tuple of strings. What is wrong is told in sshd's words, as `Refused`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from dunnart.daemon.sshd_config import lexer
from dunnart.daemon.sshd_config.lexer import Refused

if TYPE_CHECKING:
    from typing import Self

Value = str | int | tuple[str, ...]
NONE = "none"
_TIMES = ("crash", "authfail", "noauth", "invaliduser", "grace-exceeded", "refuseconnection", "max", "min")
_COUNTS = ("max-sources4", "max-sources6")
_MODES = ("overflow", "overflow6")


class Line:
    """The words behind a keyword, taken one after the other.

    Args:
        keyword: as it is written.
        rest: all that stands behind it.
    """

    def __init__(self, keyword: str, rest: str) -> None:
        self.keyword = keyword
        self._text = rest
        self._words = lexer.words(rest)

    def word(self, what: str = "argument.") -> str:
        """Take the next.

        Raises:
            Refused: there is none, or it is empty.
        """
        if not self._words or not self._words[0]:
            raise Refused(f"missing {what}" if what != "argument." else f"{self.keyword} missing argument.")
        return self._words.pop(0)

    def more(self) -> bool:
        """Whether words are left."""
        return bool(self._words)

    def all(self) -> list[str]:
        """Take all that are left; there must be one."""
        found, self._words = self._words, []
        if not found:
            raise Refused(f"no {self.keyword} specified")
        return found

    def rest(self) -> str:
        """Take the text as it stands there, quotes and comments and all."""
        self._words = []
        if not self._text:
            raise Refused(f"{self.keyword} missing argument.")
        return self._text

    def end(self) -> Self:
        """See that nothing is left.

        Raises:
            Refused: something is.
        """
        if self._words:
            raise Refused(f"keyword {self.keyword} extra arguments at end of line", at_once=False)
        return self


Reader = Callable[[Line], Value]


def word(line: Line) -> Value:
    """A word as it is."""
    return line.word()


def choice(*choices: str, **others: str) -> Reader:
    """One of several words, in any case; `others` are further ways to write some of them, with _ for -."""
    known = {each: each for each in choices} | {each.replace("_", "-"): means for each, means in others.items()}

    def read(line: Line) -> Value:
        value = line.word()
        if value.lower() not in known:
            raise Refused(f'unsupported option "{value}".')
        return known[value.lower()]

    return read


yes_or_no = choice("yes", "no")


def number(line: Line) -> Value:
    """A whole number."""
    if not line.more():
        raise Refused(f"{line.keyword} integer value missing.")
    return lexer.number(line.word(), line.keyword)


def seconds(line: Line) -> Value:
    """A time."""
    return int(lexer.seconds(line.word("time value.")))


def seconds_or_none(line: Line) -> Value:
    """A time, or none, which is 0."""
    value = line.word("time value.")
    return 0 if value.lower() == NONE else int(lexer.seconds(value))


def port(line: Line) -> Value:
    """A port."""
    value = lexer.port(line.word("port number."))
    if value <= 0:
        raise Refused("Badly formatted port number.")
    return (str(value),)


def listen_address(line: Line) -> Value:
    """An address, with a port or without: HOST, a blank, and the port, or 0 for all ports of the configuration."""
    written = line.word("address")
    host, service = written, None
    if "[" in written or written.count(":") < 2:
        host, service = lexer.host_and_port(written)
    if line.more():
        raise Refused("bad routing domain")
    number_of = 0 if service is None else lexer.port(service)
    if service is not None and number_of <= 0:
        raise Refused("bad port number")
    return (f"{host} {number_of}",)


def file(line: Line) -> Value:
    """A file's name, made absolute."""
    return lexer.absolute(line.word("file name."))


def one_more_file(line: Line) -> Value:
    """The same, as one of several lines."""
    return (lexer.absolute(line.word("file name.")),)


def own_file(line: Line) -> Value:
    """A file's name; a relative one is filled in later."""
    return lexer.expanded(line.word())


def files(line: Line) -> Value:
    """Files' names, or none, which stands alone."""
    return tuple(lexer.expanded(each) for each in _alone(line, NONE))


def _alone(line: Line, single: str) -> list[str]:
    found = line.all()
    if any(not each for each in found):
        raise Refused(f"keyword {line.keyword} empty argument", at_once=False)
    if len(found) > 1 and single in {each.lower() for each in found}:
        raise Refused(f'keyword {line.keyword} "{single}" argument must appear alone.', at_once=False)
    return found


def strings(line: Line) -> Value:
    """Words, or none, which stands alone."""
    return tuple(_alone(line, NONE))


def patterns(line: Line) -> Value:
    """Patterns of names."""
    found = line.all()
    if "" in found:
        raise Refused(f"empty {line.keyword} pattern")
    return tuple(found)


def users(line: Line) -> Value:
    """Patterns of users, with @ and one of hosts behind them or not."""
    from dunnart.keys.patterns import AddressPatterns

    found = line.all()
    for each in found:
        _, at, host = each.rpartition("@")
        try:
            good = bool(each) and (not at or bool(AddressPatterns(host)))
        except ValueError:
            good = False
        if not good:
            raise Refused(f'invalid {line.keyword} pattern: "{each}"')
    return tuple(found)


def environment_names(line: Line) -> Value:
    """Patterns of variables' names."""
    found = line.all()
    if any(not each or "=" in each for each in found):
        raise Refused("Invalid environment name.")
    return tuple(found)


def environment(line: Line) -> Value:
    """Variables: NAME=VALUE; of one name the first counts."""
    found: dict[str, str] = {}
    for each in line.all():
        name, equals, _ = each.partition("=")
        if not equals:
            raise Refused("Invalid environment.")
        found.setdefault(name, each)
    return tuple(found.values())


def algorithms(what: str) -> Reader:
    """A list of algorithms with + - or ^ before it or not; `what` of them is in the table of `algorithms`."""

    def read(line: Line) -> Value:
        from dunnart.daemon.sshd_config.algorithms import unknown

        value = line.word()
        if wrong := unknown(what, value):
            raise Refused(f"Bad {line.keyword} '{wrong}'.")
        return value

    return read


def command(line: Line) -> Value:
    """A program with its arguments, by its absolute path, or none."""
    value = line.rest()
    if not value.startswith("/") and value.lower() != NONE:
        raise Refused(f"{line.keyword} must be an absolute path")
    return NONE if value.lower() == NONE else value


def text(line: Line) -> Value:
    """All that stands there, or none."""
    value = line.rest()
    return NONE if value.lower() == NONE else value


def subsystem(line: Line) -> Value:
    """A subsystem's name, and its command."""
    name = line.word()
    line_command = [line.word()]
    if line.more():
        line_command += line.all()
    return (name, lexer.joined(line_command))


def startups(line: Line) -> Value:
    """BEGIN:RATE:FULL, or FULL alone."""
    found = re.match(r"(\d+)(?::(\d+):(\d+))?", line.word())
    begin, rate, full = (int(each or 0) for each in found.groups()) if found else (0, 0, 0)
    if found and found[2] is None:
        rate, full = 30, begin
    if not (0 < begin <= full and 1 <= rate <= 100):
        raise Refused(f"Invalid {line.keyword} spec.")
    return f"{begin}:{rate}:{full}"


def netblock_size(line: Line) -> Value:
    """IPV4:IPV6, or IPV4 alone."""
    found = re.match(r"(\d+)(?::(\d+))?", line.word())
    if found is None or int(found[1]) > 32 or int(found[2] or 0) > 128:
        raise Refused(f"Invalid {line.keyword} spec.")
    return f"{int(found[1])}:{int(found[2] or 128)}"


def number_or_none(line: Line) -> Value:
    """A whole number, or none."""
    value = line.word()
    return NONE if value == NONE else lexer.number(value, line.keyword)


def networks(line: Line) -> Value:
    """Networks with commas between them, or none."""
    from dunnart.keys.patterns import AddressPatterns

    value = line.word()
    if value.lower() == NONE:
        return NONE
    try:
        AddressPatterns(value)
    except ValueError as error:
        raise Refused(f"keyword {line.keyword} invalid address argument.") from error
    return value


def penalties(line: Line) -> Value:
    """Yes or no, or the penalties: NAME:TIME."""
    found = line.all()
    if found[0].lower() in {"yes", "no"}:
        if len(found) > 1:
            raise Refused(f'keyword {line.keyword} "{found[0]}" argument must appear alone.')
        return (found[0].lower(),)
    for each in found:
        name, _, value = each.partition(":")
        if name in _TIMES:
            lexer.seconds(value)
        elif name in _COUNTS:
            lexer.number(value, line.keyword)
        elif name not in _MODES or value not in {"deny-all", "permissive"}:
            raise Refused(f"unsupported {line.keyword} keyword {each}")
    return tuple(found)


def rekey_limit(line: Line) -> Value:
    """Bytes and seconds, each 0 for the default."""
    amount = line.word()
    size = 0 if amount == "default" else lexer.scaled(amount)
    if 0 < size < 16:
        raise Refused(f"{line.keyword} too small")
    return f"{size} {seconds_or_none(line) if line.more() else 0}"


def forward_rules(*, to_listen: bool) -> Reader:
    """HOST:PORT several times, or any or none alone; where is listened a port does alone."""

    def read(line: Line) -> Value:
        if not line.more():
            raise Refused(f"{line.keyword} missing argument.")
        found: list[str] = []
        for each in line.all():
            if each in {"any", NONE}:
                if found:
                    raise Refused(f"{each} must appear alone on a {line.keyword} line.")
                found.append(each)
                continue
            rule = f"*:{each}" if to_listen and ":" not in each else each
            _, service = lexer.host_and_port(rule)
            if service is None or (service != "*" and lexer.port(service) < 0):
                raise Refused(f"{line.keyword} bad port number")
            found.append(rule)
        return tuple(found)

    return read


def authentication_methods(line: Line) -> Value:
    """Lists of methods, or any alone."""
    found = line.all()
    if "any" in found and len(found) > 1:
        raise Refused(f'"any" must appear alone in {line.keyword}')
    for each in found:
        for method in each.split(","):
            if method.partition(":")[0] not in _METHODS and each != "any":
                raise Refused(f"invalid {line.keyword} method list.")
    return tuple(found)


_METHODS = ("publickey", "password", "keyboard-interactive", "hostbased", "gssapi-with-mic", "gssapi-keyex", "none")


def mask(line: Line) -> Value:
    """Permissions in octal digits."""
    value = line.word()
    if not re.fullmatch("[0-7]+", value) or int(value, 8) > 0o777:
        raise Refused(f"Invalid {line.keyword}.")
    return f"0{int(value, 8):o}"


def key_options(line: Line) -> Value:
    """What is wanted of keys that hardware keeps."""
    wanted = {each.lower() for each in line.all()} - {NONE}
    for each in wanted:
        if each not in {"touch-required", "verify-required"}:
            raise Refused(f"unsupported {line.keyword} option {each}", at_once=False)
    return " ".join(sorted(wanted)) or NONE


def permit_user_environment(line: Line) -> Value:
    """Yes, no, or a list of patterns."""
    return line.word()


def tunnel(line: Line) -> Value:
    """How networks may be joined."""
    value = line.word()
    if value not in {"no", "point-to-point", "ethernet", "yes"}:
        raise Refused(f"bad {line.keyword} argument {value}")
    return value


def timeouts(line: Line) -> Value:
    """TYPE=TIME several times, or none alone."""
    found = _alone(line, NONE)
    for each in found:
        kind, equals, value = each.partition("=")
        if each.lower() != NONE:
            if not kind or not equals:
                raise Refused(f"invalid channel timeout {each}")
            lexer.seconds(value)
    return tuple(found)


_CLASSES = ("ef", "le", "none", "lowdelay", "throughput", "reliability", *(f"cs{n}" for n in range(8)),
            *(f"af{n}{m}" for n in range(1, 5) for m in range(1, 4)))  # fmt: skip


def quality_of_service(line: Line) -> Value:
    """One or two classes of service, by name or number."""
    found = [line.word()]
    found.append(line.word() if line.more() else found[0])
    for each in found:
        if each.lower() not in _CLASSES and not re.fullmatch(r"0x[0-9a-fA-F]{1,2}|[0-9]{1,3}", each):
            raise Refused(f"Bad {line.keyword} value: {each}")
    return " ".join(found)


_LEVELS = ("silent", "fatal", "error", "info", "verbose", "debug", "debug2", "debug3")


def log_level(line: Line) -> Value:
    """How much is logged."""
    value = line.word() if line.more() else "<NONE>"
    level = {"quiet": "silent", "debug1": "debug"}.get(value.lower(), value.lower())
    if level not in _LEVELS:
        raise Refused(f"unsupported log level '{value}'")
    return level.upper()


_FACILITIES = ("daemon", "user", "auth", "authpriv", *(f"local{n}" for n in range(8)))


def log_facility(line: Line) -> Value:
    """Which part of the system's log."""
    value = line.word() if line.more() else "<NONE>"
    if value.lower() not in _FACILITIES:
        raise Refused(f"unsupported log facility '{value}'")
    return value.upper()


def digest(line: Line) -> Value:
    """What fingerprints are made by."""
    value = line.word()
    if value.lower() not in {"md5", "sha256"}:
        raise Refused(f'Invalid {line.keyword} algorithm "{value}".')
    return value.upper()
