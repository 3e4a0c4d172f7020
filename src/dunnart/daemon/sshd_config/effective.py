"""Which values count: sshd's two readings of its configuration.

First the lines outside Match blocks, and those in blocks that fit everybody; of each keyword the first line counts.
Then, for a login, the lines in the blocks that fit it, again the first of each keyword; what they say takes the place
of what was found before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dunnart.daemon.sshd_config.conditions import Condition
from dunnart.daemon.sshd_config.keywords import KEYWORDS
from dunnart.daemon.sshd_config.readers import Value
from dunnart.daemon.sshd_config.reading import Directive
from dunnart.records import dataclass

_DEFAULT_FILE = "[default]"


@dataclass(frozen=True, slots=True)
class Setting:
    """A keyword's value, and where it was found."""

    value: Value
    file: str = _DEFAULT_FILE
    line: int = 0

    @property
    def given(self) -> bool:
        """Whether it stands somewhere, and is not the default."""
        return self.file != _DEFAULT_FILE


Settings = Mapping[str, Setting]


def settings(directives: Iterable[Directive], fits: Callable[[tuple[Condition, ...]], bool] | None = None) -> Settings:
    """Give the value of every keyword.

    Args:
        directives: all.
        fits: tells of Match lines one within the other whether a login meets them; None: those of no login.
    """
    directives = list(directives)
    found = _first(each for each in directives if all(line.always for line in each.conditions))
    if fits is not None:
        of_login = _first(
            each for each in directives
            if each.conditions and KEYWORDS[each.keyword].match and fits(each.conditions)
        )  # fmt: skip
        if "subsystem" in of_login and "subsystem" in found:
            merged = _subsystems(found["subsystem"].value) | _subsystems(of_login["subsystem"].value)
            place = of_login["subsystem"]
            of_login["subsystem"] = Setting(
                tuple(word for pair in merged.items() for word in pair), place.file, place.line
            )
        found |= of_login
    return {name: found.get(name) or Setting(keyword.default) for name, keyword in KEYWORDS.items()}


def _subsystems(value: Value) -> dict[str, str]:
    assert isinstance(value, tuple)
    return dict(zip(value[::2], value[1::2], strict=True))


def _first(directives: Iterable[Directive]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for each in directives:
        keep = KEYWORDS[each.keyword].keep
        before = found.get(each.keyword)
        value = each.value
        if before is not None:
            if keep == "first":
                continue
            if keep != "last":
                assert isinstance(before.value, tuple)
                assert isinstance(value, tuple)
                if keep == "named" and value[0] in before.value[::2]:
                    continue
                found[each.keyword] = Setting(before.value + value, before.file, before.line)
                continue
        found[each.keyword] = Setting(value, each.file, each.line)
    return found
