"""The arguments of internal-sftp and sftp-server, as options of the plug-in sftp."""

from __future__ import annotations

import re

INTERNAL = "internal-sftp"
_SWITCHES, _VALUED = "Reh", "dfluPp"


def sftp_options(arguments: str) -> dict[str, object]:
    """Read them. Where and how much is logged is not for a subsystem to say here: -e, -f and -l do nothing.

    Raises:
        ValueError: there is another one, or a value is none.
    """
    from dunnart.daemon.sshd_config.lexer import words

    found: dict[str, object] = {}
    rest = words(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or len(word) < 2:
            raise ValueError(f"{INTERNAL} takes no argument {word!r}")
        for at, flag in enumerate(word[1:], 2):
            if flag in _VALUED:
                value = word[at:] or (rest.pop(0) if rest else "")
                if not value:
                    raise ValueError(f"{INTERNAL} wants a value behind -{flag}")
                _take(found, flag, value)
                break
            if flag not in _SWITCHES:
                raise ValueError(f"{INTERNAL} takes no flag -{flag}")
            if flag == "R":
                found["read_only"] = True
    return found


def _take(found: dict[str, object], flag: str, value: str) -> None:
    match flag:
        case "d":
            found["start"] = value
        case "u":
            if not re.fullmatch("[0-7]{1,4}", value):
                raise ValueError(f"{value!r} is no umask")
            found["umask"] = value
        case "p":
            found["allow_requests"] = value.split(",")
        case "P":
            found["deny_requests"] = value.split(",")
        case _:
            pass
