"""What is configured in vain, for a warning at the start: the configuration can be served, but hardly means that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dunnart.daemon.options import table
from dunnart.daemon.uses import KINDS_OF_FORWARDS
from dunnart.daemon.values import LOG_LEVEL, OFF

if TYPE_CHECKING:
    from dunnart.daemon.config import ServeConfig

_ALLOW_LIST = "allow-list"


def in_vain(variants: Sequence[ServeConfig]) -> list[str]:
    """Say what does nothing, of a configuration without its match tables, and with each of them."""
    unheard = sorted({each for variant in variants for each in _unheard(variant)})
    return [
        *(f'{option} does nothing, for audit names nobody to tell; audit = ["log"] writes a log' for option in unheard),
        *_not_forwarded(variants),
    ]


def _unheard(config: ServeConfig) -> list[str]:
    """Name what was asked to be told of files, if nobody hears it. Of the default of `events` nothing is said."""
    return [] if config.audit else [
        f"plugin.{name}.{option}" for name in ("sftp", "scp") for option in ("digest", "events")
        if config.plugin.get(name, {}).get(option, False) not in {"off", False}
    ]  # fmt: skip


def _not_forwarded(variants: Sequence[ServeConfig]) -> Iterable[str]:
    """Say that nobody may have anything forwarded, though it is not off for all."""
    kinds = tuple(dict.fromkeys(kind for each in variants for kind in each.forwards if kind != OFF))
    if kinds and not any(_is_forwarded(each) for each in variants):
        why = "no rule of plugin.allow-list allows that" if variants[0].forwarding else "forwarding names no plug-in"
        yield f'forwards names {", ".join(kinds)}, but nobody may have anything forwarded: {why}; forwards = ["off"]?'


def _is_forwarded(config: ServeConfig) -> bool:
    kinds = set(config.forwards) - {OFF}
    if _ALLOW_LIST in config.forwarding:
        from dunnart.plugins.allow_list import Options, allowed

        values = {name: value for name, value in config.plugin.get(_ALLOW_LIST, {}).items() if name != LOG_LEVEL}
        kinds &= {KINDS_OF_FORWARDS[each] for each in allowed(table(Options)(values))}
    return bool(kinds and config.forwarding)
