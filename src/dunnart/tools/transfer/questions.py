"""Questions that a login asks the person at the terminal: is this the host, what is the password."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from dunnart.tools.terminal import ask, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunnart.client import UnknownHost
    from dunnart.protocol.questions import Prompt
    from dunnart.tools.transfer.foreground import Foreground

_YES, _NO = ("yes", "y"), ("no", "n")  # dbclient's own question is answered by one letter


class LoginQuestions:
    """Asks on the terminal, or by the program in $SSH_ASKPASS where there is none; for `dunnart.client.connect`.

    Args:
        front: where the terminal is.
        user: who is to be logged in, as the questions name it.
        host: the server, as the questions name it.
        remember: the known_hosts file that a host is added to which the person trusts; "" for none.
        trust: take hosts that are not known without asking.
        hashed: do not show the host's name in the file.
        quiet: do not say what the server says, nor that a host is remembered.
    """

    def __init__(
        self, front: Foreground, user: str, host: str, *, remember: str, trust: bool = False, hashed: bool = False,
        quiet: bool = False,
    ) -> None:  # fmt: skip
        self._front = front
        self._who = f"{shown(user)}@{shown(host)}"
        self._remember = remember
        self._trust = trust
        self._hashed = hashed
        self._quiet = quiet
        self._passwords = 0

    def banner(self, text: str) -> None:
        """The server says something before the login."""
        print(*map(shown, text.splitlines()), sep="\n", file=sys.stderr, flush=True)

    async def unknown_host(self, host: UnknownHost) -> bool:
        """Whether to trust a host, which is then remembered."""
        if not self._trust:
            question = (
                f"The host key of {shown(host.name)} is not known: {host.key.key_type} {host.fingerprint}\n"
                "Is this the fingerprint of the host that you mean (yes, no, or the fingerprint itself)? "
            )
            while (given := await self._front.ask(functools.partial(ask, question, hidden=False))) is not None:
                question = "Please type yes, no, or the fingerprint: "
                if given.strip() in {*_YES, *_NO, host.fingerprint}:
                    break
            if given is None or given.strip() in _NO:
                return False
        if self._remember:
            host.remember(self._remember, hashed=self._hashed)
            if self._trust and not self._quiet:
                print(
                    f"{shown(host.name)} is known from now on: {host.key.key_type} {host.fingerprint}", file=sys.stderr
                )
        return True

    async def password(self) -> str | None:
        """The password; who is asked again has given a wrong one."""
        question = f"{'Permission denied. ' if self._passwords else ''}Password of {self._who}: "
        self._passwords += 1
        return await self._front.ask(lambda: ask(question, hidden=True))

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
