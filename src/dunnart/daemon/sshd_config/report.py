"""Prints the effective configuration as `sshd -T` does: keyword and value, a line each.

Keywords are in small letters, as sshd had them up to 10.4; what reads such lines knows these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from dunnart.daemon.sshd_config.keywords import KEYWORDS
from dunnart.daemon.sshd_config.readers import NONE
from dunnart.daemon.sshd_config.translate import HOST_KEYS, listen_addresses

if TYPE_CHECKING:
    from dunnart.daemon.sshd_config.effective import Settings

_PENALTIES = {
    "crash": 90.0, "authfail": 5.0, "noauth": 1.0, "invaliduser": 5.0, "grace-exceeded": 10.0, "refuseconnection": 10.0,
    "max": 600.0, "min": 15.0, "max-sources4": 65_536, "max-sources6": 65_536, "overflow": "permissive",
    "overflow6": "permissive",
}  # fmt: skip
_NOT_SHOWN = {"gssapikexalgorithms", "hostbasedacceptedalgorithms", "rdomain", "debianbanner"}


def report(settings: Settings, algorithms: Mapping[str, Sequence[str]]) -> str:
    """Give the lines.

    Args:
        settings: of every keyword.
        algorithms: the lists that are in effect, by keyword.
    """
    return "".join(f"{line}\n" for line in _lines(settings, algorithms))


def _lines(settings: Settings, algorithms: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for name, keyword in KEYWORDS.items():
        value = settings[name].value
        if name in _NOT_SHOWN:
            continue
        if name in algorithms:
            yield f"{name} {','.join(algorithms[name])}"
        elif name == "listenaddress":
            for host, port in listen_addresses(settings, _in_order):
                yield f"{name} [{host}]:{port}" if ":" in host else f"{name} {host}:{port}"
        elif name == "hostkey":
            yield from (f"{name} {path}" for path in value or HOST_KEYS)  # type: ignore[union-attr] # a list
        elif name == "persourcepenalties":
            yield f"{name} {_penalties(value)}"  # type: ignore[arg-type] # a list
        elif name == "revokedkeys" and not settings[name].given:
            continue
        elif name == "unusedconnectiontimeout" and value == 0:
            yield f"{name} {NONE}"
        elif name == "subsystem":
            assert isinstance(value, tuple)
            yield from (f"{name} {one} {command}" for one, command in zip(value[::2], value[1::2], strict=True))
        elif not isinstance(value, tuple):
            yield f"{name} {value}"
        elif keyword.lines == "each":
            yield from (f"{name} {each}" for each in value)
        elif value:
            yield f"{name} {' '.join(value)}"


def _in_order(host: str, port: int, family: str) -> list[tuple[str, int]]:
    """Look an address up; sshd shows what it has found last first."""
    from dunnart.daemon.sshd_config.translate import resolved

    if not host:
        families = ["inet6", "inet"] if family == "any" else [family]
        return [pair for each in families for pair in resolved("", port, each)]
    return resolved(host, port, family)[::-1]


def _penalties(written: Sequence[str]) -> str:
    found: dict[str, object] = {}
    enabled: bool | None = None
    for each in written:
        name, _, value = each.partition(":")
        if each in {"yes", "no"}:
            enabled = each == "yes" if enabled is None else enabled
            continue
        enabled = True if enabled is None else enabled
        found.setdefault(name, value)
    if enabled is False:
        return "no"
    if "overflow" in found:
        found.setdefault("overflow6", found["overflow"])
    from dunnart.daemon.sshd_config.lexer import seconds

    shown = []
    for name, default in _PENALTIES.items():
        chosen = found.get(name, default)
        shown.append(f"{name}:{seconds(str(chosen)):f}" if isinstance(default, float) else f"{name}:{chosen}")
    return " ".join(shown)
