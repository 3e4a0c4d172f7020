"""A phone book at a prompt with completion, history and a full screen. In prompt_toolkit.

    pip install "dunnart[prompt-toolkit]"
    python examples/prompt_toolkit_app.py
    ssh -p 2222 ann@127.0.0.1

`add NAME NUMBER`, `find NAME`, `browse` (arrows; q goes back) and `quit` are commands; Tab completes. `ssh -p 2222
127.0.0.1 find NAME` answers without a terminal. Everybody may come in, by any name.
"""

from __future__ import annotations

import argparse

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application import Application
from prompt_toolkit.completion import NestedCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.widgets import TextArea

import dunnart
from dunnart.apps.prompt_toolkit import prompt_toolkit_handler

_HELP = "there are: add NAME NUMBER, find NAME, browse, quit"
_MOST_NAMES = 1000
_LONGEST = 40


class PhoneBook:
    """Names and numbers, the same for all visitors."""

    def __init__(self) -> None:
        self._numbers = {"talking clock": "119", "weather": "1196"}

    def completer(self) -> NestedCompleter:
        """Complete commands and names."""
        return NestedCompleter.from_nested_dict(
            {"add": None, "find": dict.fromkeys(self._numbers), "browse": None, "quit": None}
        )

    def add(self, name: str, number: str) -> str:
        """Note a number."""
        if len(self._numbers) >= _MOST_NAMES or len(name) > _LONGEST or not number.isdigit():
            return "that does not fit into the book"
        self._numbers[name] = number
        return f"noted {name}"

    def find(self, name: str) -> str:
        """Look a number up."""
        return self._numbers.get(name, f"{name} is not in the book")

    def __str__(self) -> str:
        return "\n".join(f"{name:30} {number}" for name, number in sorted(self._numbers.items()))


async def browse(book: PhoneBook, user: str) -> None:
    """Show the whole book until q is pressed."""
    keys = KeyBindings()

    @keys.add("q")
    @keys.add("c-c")
    def _back(event: KeyPressEvent) -> None:
        event.app.exit()

    title = Window(FormattedTextControl([("reverse", f" the phone book, for {user} - q goes back ")]), height=1)
    page = TextArea(str(book), read_only=True, scrollbar=True)
    await Application[None](Layout(HSplit([title, page])), key_bindings=keys, full_screen=True).run_async()


async def converse(book: PhoneBook, session: dunnart.Session) -> int:
    """Serve a visitor at a terminal."""
    print_formatted_text(FormattedText([("bold", f"Hello {session.user}: "), ("", _HELP)]))
    prompts: PromptSession[str] = PromptSession([("ansigreen", "book> ")], rprompt=session.user)
    while True:
        try:
            line = await prompts.prompt_async(completer=book.completer())
        except KeyboardInterrupt:
            continue
        except EOFError:
            return 0
        match line.split():
            case []:
                continue
            case ["quit"]:
                return 0
            case ["browse"]:
                await browse(book, session.user)
            case ["add", *name, number] if name:
                print_formatted_text(book.add(" ".join(name), number))
            case ["find", *name]:
                print_formatted_text(FormattedText([("ansiyellow", book.find(" ".join(name)))]))
            case _:
                print_formatted_text(_HELP)


async def answer(book: PhoneBook, session: dunnart.Session) -> int:
    """Serve a command without a terminal."""
    match (session.command or "").split():
        case ["find", *name]:
            await session.write(f"{book.find(' '.join(name))}\n")
            return 0
    await session.stderr.write("usage: find NAME, or connect with a terminal\n")
    return 2


def main() -> None:
    """Serve everybody, until control-C."""
    parser = argparse.ArgumentParser(description="A phone book.")
    parser.add_argument("--port", type=int, default=2222)
    port = parser.parse_args().port
    book = PhoneBook()

    async def at_terminal(session: dunnart.Session) -> int:
        return await converse(book, session)

    async def plainly(session: dunnart.Session) -> int:
        return await answer(book, session)

    server = dunnart.Server(
        prompt_toolkit_handler(at_terminal, without_terminal=plainly),
        host_keys=[dunnart.PrivateKey.load_or_generate("example_host_key")],
        authenticators=[dunnart.AllowAnyone()],
        listen=f"127.0.0.1:{port}",
        accept_env=("LANG", "LC_*", "COLORTERM", "NO_COLOR"),
    )
    print(f"ssh -p {port} 127.0.0.1")
    server.run()


if __name__ == "__main__":
    main()
