"""The examples with full screens: two people at two terminals, each with a screen of his own."""

from __future__ import annotations

import pytest

from tests.examples.driver import Example, Start, Terminal, Tmux, until

pytestmark = pytest.mark.interop


def resize(screen: Tmux, columns: int, rows: int) -> None:
    """Give the terminal another size."""
    screen("resize-window", "-x", str(columns), "-y", str(rows))
    until(lambda: screen("display-message", "-p", "#{pane_width} #{pane_height}").split() == [str(columns), str(rows)],
          "the window has its size")  # fmt: skip


def contains(screen: Tmux, text: str) -> None:
    """Wait until this stands somewhere on the screen."""
    try:
        until(lambda: any(text in line for line in screen.lines), f"the screen shows {text!r}")
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *screen.lines])) from None


def shows_nowhere(screen: Tmux, text: str) -> None:
    """Wait until this stands nowhere on the screen."""
    until(lambda: not any(text in line for line in screen.lines), f"the screen shows {text!r} no more")


def vanish(screen: Tmux) -> None:
    """Close the client's window, which ends the client before it can say anything."""
    screen("respawn-pane", "-k", "cat")


def enter(example: Example, terminal: Terminal, user: str, columns: int, rows: int) -> Tmux:
    """Come in at a terminal of this size."""
    screen = terminal(example.ssh(user=user))
    resize(screen, columns, rows)
    return screen


def test_a_dashboard_for_two(start: Start, terminal: Terminal) -> None:
    house = start("textual_dashboard")
    ann = enter(house, terminal, "ann", 90, 20)
    contains(ann, "you are ann")
    contains(ann, "90 by 20")
    bob = enter(house, terminal, "bob", 120, 35)
    contains(bob, "you are bob")
    contains(ann, "120 by 35")  # what they share
    contains(bob, "90 by 20")
    # Each types for himself, and at once.
    for letter in "secret":
        ann.type(letter)
        bob.type(letter.upper())
    contains(ann, "secret")
    contains(bob, "SECRET")
    assert not any("SECRET" in line for line in ann.lines)
    assert not any("secret" in line for line in bob.lines)
    assert not any("you are bob" in line for line in ann.lines)
    resize(ann, 70, 25)
    contains(ann, "70 by 25")
    contains(bob, "70 by 25")
    contains(bob, "SECRET")
    bob.type("Enter")
    contains(ann, "bob: SECRET")
    contains(ann, "secret")
    # One who vanishes, and one who leaves.
    vanish(bob)
    shows_nowhere(ann, "120 by 35")
    ann.type("C-q")
    until(lambda: ann.ended == 0, "the client has ended")


def test_a_dashboard_gives_the_terminal_back(start: Start, terminal: Terminal) -> None:
    house = start("textual_dashboard")
    command = house.ssh(user="ann")
    screen = terminal(["sh", "-c", 'echo before; "$@"; echo status was $?; read -r line; echo "$line"', "sh", *command])
    contains(screen, "you are ann")
    assert screen("display-message", "-p", "#{alternate_on} #{mouse_any_flag}").split() == ["1", "1"]
    screen.type("C-q")
    screen.shows("status was 0")
    screen.shows("before")
    modes = "#{alternate_on} #{mouse_any_flag} #{mouse_sgr_flag} #{cursor_flag} #{wrap_flag}"
    assert screen("display-message", "-p", modes).split() == ["0", "0", "0", "1", "1"]
    screen.type("typed", "Enter")
    screen.shows("typed")


def test_a_click(start: Start, terminal: Terminal) -> None:
    house = start("textual_dashboard")
    screen = terminal(house.ssh(user="ann"))
    contains(screen, "^q Leave")
    line = next(number for number, text in enumerate(screen.lines, 1) if "^q Leave" in text)
    column = screen.lines[line - 1].index("Leave") + 1
    click = f"\x1b[<0;{column};{line}"
    screen.type("-l", f"{click}M{click}m")  # as a terminal sends it
    until(lambda: screen.ended == 0, "the client has ended")


def test_a_phone_book_for_two(start: Start, terminal: Terminal) -> None:
    book = start("prompt_toolkit_app")
    ann = enter(book, terminal, "ann", 90, 20)
    bob = enter(book, terminal, "bob", 60, 30)
    contains(ann, "Hello ann")
    contains(bob, "Hello bob")
    contains(ann, "book>")
    contains(bob, "book>")
    for letter, other in zip("add carol 555", "find weather ", strict=True):
        ann.type("-l", letter)
        bob.type("-l", other)
    contains(ann, "add carol 555")
    assert not any("weather" in line or "bob" in line for line in ann.lines)
    ann.type("Enter")
    contains(ann, "noted carol")
    bob.type("Enter")
    bob.shows("1196")
    assert not any("carol" in line or "ann" in line for line in bob.lines)
    bob.type("find car")
    contains(bob, "carol")
    bob.type("Tab")
    contains(bob, "find carol")
    bob.type("Enter")
    bob.shows("555")
    # A full screen follows the window.
    bob.type("browse", "Enter")
    contains(bob, "the phone book, for bob")
    contains(bob, "talking clock")
    resize(bob, 100, 10)
    contains(bob, "the phone book, for bob")
    ann.type("find nobody", "Enter")
    ann.shows("nobody is not in the book")
    bob.type("q")
    contains(bob, "book>")
    shows_nowhere(bob, "the phone book, for bob")
    bob.type("half a li", "C-c", "quit", "Enter")
    until(lambda: bob.ended == 0, "the client has ended")
    vanish(ann)
    cleo = enter(book, terminal, "cleo", 80, 24)
    contains(cleo, "Hello cleo")
    cleo.type("C-d")
    until(lambda: cleo.ended == 0, "the client has ended")


def test_a_phone_book_without_a_terminal(start: Start) -> None:
    book = start("prompt_toolkit_app")
    done = book.run("find", "weather")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1196\n", "")
    done = book.run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "usage: find NAME, or connect with a terminal\n"


def test_a_dashboard_without_a_terminal(start: Start) -> None:
    done = start("textual_dashboard").run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "this application needs a terminal: connect with ssh -t\n"
