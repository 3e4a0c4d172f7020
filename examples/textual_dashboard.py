"""A dashboard: who is here and what the server does, with a note that everybody sees. In Textual.

    pip install "dunnart[textual]"
    python examples/textual_dashboard.py
    ssh -p 2222 ann@127.0.0.1        and, from another terminal:        ssh -p 2222 bob@127.0.0.1

Each visitor has an application of his own, as large as his terminal; what they share is an object of the program.
control-Q leaves. Everybody may come in, by any name.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.events import Resize
from textual.widgets import DataTable, Footer, Header, Input, Label

import dunnart
from dunnart.apps.textual import textual_handler


@dataclass
class House:
    """What all visitors see: each other, and the latest note."""

    visitors: list[Dashboard] = field(default_factory=list)
    note: str = "nobody has left a note"

    def changed(self) -> None:
        """Have it shown to all of them. They are on one event loop, so this is an ordinary call."""
        for each in self.visitors:
            each.call_later(each.show_house)


class Dashboard(App[None]):
    """One visitor's screen."""

    TITLE = "dunnart"
    CSS = """
    DataTable { width: 2fr; }
    #facts { width: 1fr; padding: 1 2; border-left: solid $primary; }
    #note { padding: 0 1; background: $boost; width: 100%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+q", "quit", "Leave")]

    def __init__(self, house: House, session: dunnart.Session) -> None:
        super().__init__()
        self.house = house
        self.visitor = session.user
        self.peer = str(session.peer)
        self.since = time.monotonic()

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Header()
        with Horizontal():
            yield DataTable(cursor_type="none")
            yield Label(id="facts", markup=False)
        yield Label(id="note", markup=False)
        yield Input(placeholder="a note for everybody", max_length=200)
        yield Footer()

    def on_mount(self) -> None:
        """Come in."""
        self.sub_title = self.visitor
        self.query_one(DataTable).add_columns("visitor", "from", "terminal", "minutes")
        self.house.visitors.append(self)
        self.house.changed()
        self.set_interval(10, self.show_house)
        self.query_one(Input).focus()

    def on_unmount(self) -> None:
        """Leave, by control-Q or because the connection has ended."""
        if self in self.house.visitors:
            self.house.visitors.remove(self)
            self.house.changed()

    def on_resize(self, event: Resize) -> None:
        """Show the others how large the terminal is now."""
        self.query_one("#facts", Label).update(f"you are {self.visitor}\n{event.size.width} by {event.size.height}")
        self.house.changed()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Leave a note."""
        self.house.note = f"{self.visitor}: {event.value}"
        self.query_one(Input).clear()
        self.house.changed()

    def show_house(self) -> None:
        """Bring the table and the note up to date."""
        table = self.query_one(DataTable)
        table.clear()
        for each in self.house.visitors:
            minutes = int((time.monotonic() - each.since) / 60)
            table.add_row(each.visitor, each.peer, f"{each.size.width} by {each.size.height}", str(minutes))
        self.query_one("#note", Label).update(self.house.note)


def main() -> None:
    """Serve everybody, until control-C."""
    parser = argparse.ArgumentParser(description="A dashboard for many.")
    parser.add_argument("--port", type=int, default=2222)
    port = parser.parse_args().port
    house = House()
    server = dunnart.Server(
        textual_handler(lambda session: Dashboard(house, session)),
        host_keys=[dunnart.PrivateKey.load_or_generate("example_host_key")],
        authenticators=[dunnart.AllowAnyone()],
        listen=f"127.0.0.1:{port}",
        accept_env=("LANG", "LC_*", "COLORTERM", "NO_COLOR"),
    )
    print(f"ssh -p {port} 127.0.0.1")
    server.run()


if __name__ == "__main__":
    main()
