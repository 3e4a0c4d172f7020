"""Questions that a login asks the person at the terminal: is this the host, what is the password."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

from dunnart.tools.shown import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunnart.client import UnknownHost
    from dunnart.protocol.questions import Prompt
    from dunnart.tools.foreground import Foreground


class Asking:
    """Asks on the terminal, or by the program in $SSH_ASKPASS where there is none; for `dunnart.client.connect`.

    Args:
        front: where the terminal is.
        user: who is to be logged in, at `host`; for the questions.
        host: likewise.
        remember: the known_hosts file that a host is added to which the person trusts.
        trust: take hosts that are not known without asking.
    """

    def __init__(self, front: Foreground, user: str, host: str, *, remember: str, trust: bool = False) -> None:
        self._front = front
        self._who = f"{shown(user)}@{shown(host)}"
        self._remember = remember
        self._trust = trust

    async def unknown_host(self, host: UnknownHost) -> bool:
        """Whether to trust a host, which is then remembered."""
        if not self._trust:
            question = (
                f"The host key of {shown(host.name)} is not known: {host.key.key_type} {host.fingerprint}\n"
                "Is this the fingerprint of the host that you mean (yes, no, or the fingerprint itself)? "
            )
            while (given := await self._front.ask(functools.partial(ask, question, hidden=False))) is not None:
                question = "Please type yes, no, or the fingerprint: "
                if given.strip() in {"yes", "no", host.fingerprint}:
                    break
            if given is None or given.strip() == "no":
                return False
        host.remember(self._remember)
        return True

    async def password(self) -> str | None:
        """The password."""
        return await self._front.ask(lambda: ask(f"Password of {self._who}: ", hidden=True))

    async def passphrase(self, path: str) -> str | None:
        """The passphrase of a key file."""
        return await self._front.ask(lambda: ask(f"Passphrase of {shown(path)}: ", hidden=True))

    async def prompt(self, prompt: Prompt) -> Sequence[str] | None:
        """The answers to the server's questions."""

        def run() -> list[str] | None:
            for text in (prompt.name, prompt.instruction):
                if text:
                    print(*map(shown, text.splitlines()), sep="\n", file=sys.stderr)
            answers = []
            for text, echo in prompt.prompts:
                answer = ask(f"({self._who}) {shown(text)}", hidden=not echo)
                if answer is None:
                    return None
                answers.append(answer)
            return answers

        return await self._front.ask(run)


def ask(question: str, *, hidden: bool) -> str | None:
    """Ask on the terminal; None if nobody can answer."""
    force = os.environ.get("SSH_ASKPASS_REQUIRE") == "force"
    if not force and _has_terminal():
        try:
            return _read_hidden(question) if hidden else _read(question)
        except EOFError:
            return None
    program = os.environ.get("SSH_ASKPASS")
    if not program or not hidden:
        return None
    import subprocess

    done = subprocess.run([program, question], stdout=subprocess.PIPE, check=False)
    return done.stdout.decode(errors="surrogateescape").rstrip("\r\n") if done.returncode == 0 else None


def _has_terminal() -> bool:
    if os.name == "nt":
        return sys.stdin.isatty()
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


def _read_hidden(question: str) -> str:
    import getpass

    return getpass.getpass(question)


def _read(question: str) -> str:
    if os.name == "nt":
        return input(question)
    with open("/dev/tty", "r+b", buffering=0) as terminal:
        terminal.write(question.encode(errors="replace"))
        line = b""
        while not line.endswith(b"\n"):
            data = terminal.read(1)
            if not data:
                raise EOFError
            line += data
    return line.decode(errors="replace").rstrip("\n")
