"""When certificates are valid: reading -V, and showing it."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from dunnart.keys.certificate import FOREVER
from dunnart.tools.keygen.flags import KeygenError

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MINUTE = 60
_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


def interval(text: str) -> tuple[int, int]:
    """Read -V: "+52w" from now on, or "FROM:TO".

    Each may be a time from now as +1d or -4w2d, YYYYMMDD or YYYYMMDDHHMM[SS], with a Z for UTC, 0x and seconds since
    1970 in hexadecimal, or "always" and "forever".
    """
    now = int(time.time())
    if text.startswith("+") and ":" not in text:
        # From a minute ago, for hosts whose clocks are slow.
        return (now - _MINUTE + 1) // _MINUTE * _MINUTE, now + _duration(text[1:], text)
    start, colon, end = text.partition(":")
    if not (start and colon and end):
        raise KeygenError(f"-V {text!r} is neither a time from now such as +52w nor FROM:TO")
    valid = (0 if start == "always" else _moment(start, now), FOREVER if end == "forever" else _moment(end, now))
    if not 0 <= valid[0] < valid[1]:
        raise KeygenError(f"-V {text!r} is no time at all")
    return valid


def _moment(text: str, now: int) -> int:
    if text[0] in "+-":
        seconds = _duration(text[1:], text)
        return now + seconds if text[0] == "+" else now - seconds
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text):
        return int(text, 16)
    digits = re.sub(r"(?i)(z|utc)$", "", text)
    try:
        # strptime would take blanks and signs too.
        moment = datetime.strptime(digits if digits.isdecimal() else "", _FORMATS[len(digits)])  # noqa: DTZ007
        return int((moment if digits == text else moment.replace(tzinfo=UTC)).timestamp())
    except (KeyError, ValueError, OverflowError) as error:
        raise KeygenError(
            f"-V: {text!r} is no time: YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with Z for UTC"
        ) from error


def _duration(text: str, whole: str) -> int:
    if not re.fullmatch(r"(\d{1,9}[smhdwSMHDW]?)+", text, re.ASCII):
        raise KeygenError(f"-V: {whole!r} is no time from now; write it as +4w or -1d12h")
    return sum(int(number) * _SECONDS[unit.lower()] for number, unit in re.findall(r"(\d+)(\D?)", text))


def shown_validity(valid_after: int, valid_before: int) -> str:
    """How a certificate's validity is shown, in local time."""
    if valid_after == 0:
        return "forever" if valid_before == FOREVER else f"before {_shown(valid_before)}"
    if valid_before == FOREVER:
        return f"after {_shown(valid_after)}"
    return f"from {_shown(valid_after)} to {_shown(valid_before)}"


def _shown(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"second {seconds}"
