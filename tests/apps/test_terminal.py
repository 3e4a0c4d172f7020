"""What a visitor's terminal is for any framework: pastes and colours; and what is loaded when."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dunnart
from dunnart.apps import terminal
from dunnart.apps.terminal import Pastes, colour_bits

SOURCE = str(Path(dunnart.__path__[0]).parent)
START, END = "\x1b[200~", "\x1b[201~"

typed = st.lists(st.sampled_from([START, END, "x", "\x1b", "\x1b[20", "y" * 30, "\r"]), max_size=40).map("".join)


def kept(text: str, pieces: list[str]) -> tuple[str, int]:
    """What is left of pieces, and how many pastes were forgotten."""
    forgotten: list[None] = []
    pastes = Pastes(lambda: forgotten.append(None))
    assert "".join(pieces) == text
    return "".join(map(pastes.without_large, pieces)), len(forgotten)


@given(typed, st.lists(st.integers(1, 9)))
def test_small_pastes_are_left_alone_in_any_pieces(text: str, sizes: list[int]) -> None:
    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert kept(text, [*pieces, rest]) == (text, 0)


@given(st.lists(st.integers(1, 9), min_size=1))
def test_a_large_paste_is_dropped_to_its_end_in_any_pieces(sizes: list[int]) -> None:
    text = f"before{START}{'z' * 400}{END}after{START}small{END}\r"
    pieces, rest, number = [], text, 0
    while rest:
        size = sizes[number % len(sizes)]
        pieces.append(rest[:size])
        rest, number = rest[size:], number + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "_LARGEST_PASTE", 100)
        left, forgotten = kept(text, pieces)
    head, _, tail = left.partition("z")
    assert head == f"before{START}"
    assert tail.lstrip("z") == f"after{START}small{END}\r"
    assert len(left) < len(text) - 250
    assert forgotten == 1


def test_a_paste_that_begins_again_and_again_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_LARGEST_PASTE", 100)
    pieces = [START, *[f"zzzz{START}"] * 50, END, "after"]
    left, forgotten = kept("".join(pieces), pieces)
    assert left.endswith("after")
    assert len(left) < 120
    assert forgotten == 1


@pytest.mark.parametrize(
    ("term", "environment", "bits"),
    [
        ("xterm", {}, 8), ("xterm-256color", {}, 8), ("xterm-kitty", {}, 24), ("xterm-direct", {}, 24),
        ("tmux-256color", {}, 8), ("tmux-256color", {"COLORTERM": "truecolor"}, 24), ("screen", {}, 8),
        ("linux", {}, 4), ("unheard-of", {}, 4), ("unheard-of-256color", {}, 8), ("vt220", {}, 1), ("", {}, 4),
        ("xterm-256color", {"NO_COLOR": "1", "COLORTERM": "truecolor"}, 1), ("xterm", {"NO_COLOR": ""}, 8),
    ],
)  # fmt: skip
def test_colours_by_the_terminals_type(term: str, environment: dict[str, str], bits: int) -> None:
    session = SimpleNamespace(terminal=SimpleNamespace(term=term), environment=environment)
    assert colour_bits(cast("dunnart.Session", session)) == bits


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter."""
    program = f"import sys; sys.path.insert(0, {SOURCE!r}); {program}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_frameworks_are_loaded_when_they_are_wanted() -> None:
    done = run("import dunnart, dunnart.apps; dunnart.Server; print('textual' in sys.modules, 'rich' in sys.modules, "
               "'prompt_toolkit' in sys.modules)")  # fmt: skip
    assert done.stdout == "False False False\n", done.stderr
    done = run("import dunnart.apps.prompt_toolkit; print('textual' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [("textual", "textual", "textual"), ("prompt_toolkit", "prompt_toolkit", "prompt-toolkit")],
)
def test_a_missing_framework_says_what_to_install(module: str, missing: str, extra: str) -> None:
    done = run(f"sys.modules['{missing}'] = None; import dunnart.apps.{module}")
    assert done.returncode == 1
    assert f'pip install "dunnart[{extra}]"' in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("ImportError: ")
