"""A Python prompt inside the running program: look at its objects, call its functions, await its coroutines.

    python examples/repl.py --keys ~/.ssh/id_ed25519.pub
    ssh -p 2222 127.0.0.1
    ssh -p 2222 127.0.0.1 'len(asyncio.all_tasks())'

Whoever comes in can do everything that the program can: only the keys in the file are let in.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import codeop
import functools
import inspect
import io
import os
import traceback
import types
from collections.abc import Awaitable

import dunnart

_FILE = "<ssh>"
_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class Interpreter:
    """Runs one visitor's lines, in a namespace of his own.

    Args:
        namespace: what his names stand for at first.
    """

    def __init__(self, namespace: dict[str, object]) -> None:
        self._printed = io.StringIO()
        self._namespace = {**namespace, "print": functools.partial(print, file=self._printed)}
        self._is_whole = codeop.CommandCompiler()
        self._is_whole.compiler.flags |= _FLAGS

    def whole(self, source: str) -> bool:
        """Whether there is nothing to wait for: a statement is complete, or wrong already."""
        try:
            return self._is_whole(source) is not None
        except (SyntaxError, ValueError, OverflowError):
            return True

    async def run(self, source: str) -> tuple[str, bool]:
        """Run statements on the program's event loop: it stands still while they do not await.

        Returns:
            What they printed, the last one's value, and the traceback if they failed; and whether they did not.
        """
        done = False
        try:
            value = await self._value(source)
            if value is not None:
                self._namespace["_"] = value
                self._printed.write(f"{value!r}\n")
            done = True
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - what the visitor typed
            frames = error.__traceback__
            while frames is not None and frames.tb_frame.f_code.co_filename != _FILE:  # ours say nothing to him
                frames = frames.tb_next
            self._printed.writelines(traceback.format_exception(type(error), error, frames))
        text = self._printed.getvalue()
        self._printed.seek(0)
        self._printed.truncate()
        return text, done

    async def _value(self, source: str) -> object:
        tree = compile(source, _FILE, "exec", _FLAGS | ast.PyCF_ONLY_AST)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        await self._evaluate(compile(tree, _FILE, "exec", _FLAGS))
        return await self._evaluate(compile(ast.Expression(last.value), _FILE, "eval", _FLAGS)) if last else None

    async def _evaluate(self, code: types.CodeType) -> object:
        value: object = eval(code, self._namespace)  # noqa: S307 - what a prompt is for
        return await value if code.co_flags & inspect.CO_COROUTINE and isinstance(value, Awaitable) else value


async def repl(session: dunnart.Session, namespace: dict[str, object]) -> int:
    """Serve one visitor: a command alone, or line after line."""
    interpreter = Interpreter(namespace | {"session": session})
    if session.command is not None:
        text, done = await interpreter.run(session.command)
        await session.write(text)
        return 0 if done else 1
    await session.write(f"Names here: {', '.join(sorted(namespace))}. Control-D ends.\n")
    source = ""
    while True:
        try:
            source += await session.readline("... " if source else ">>> ") + "\n"
        except dunnart.Interrupted:
            source = ""
        except EOFError:
            return 0
        if source and interpreter.whole(source):
            text, _ = await interpreter.run(source)
            await session.write(text)
            source = ""


def main() -> None:
    """Serve the owners of some keys, until control-C."""
    parser = argparse.ArgumentParser(description="A Python prompt inside a running program.")
    parser.add_argument("--port", type=int, default=2222)
    parser.add_argument("--keys", default="~/.ssh/id_ed25519.pub", help="who may come in: public keys, one a line")
    arguments = parser.parse_args()
    try:
        with open(os.path.expanduser(arguments.keys), encoding="utf-8") as file:
            keys = dunnart.PublicKeys(file.read())
    except OSError as error:
        parser.error(f"no public keys: {error}; name a file of them with --keys")
    namespace: dict[str, object] = {"asyncio": asyncio, "state": {"visits": 0}}
    server = dunnart.Server(
        functools.partial(repl, namespace=namespace),
        host_keys=[dunnart.PrivateKey.load_or_generate("example_host_key")],
        authenticators=[keys],
        listen=f"127.0.0.1:{arguments.port}",
    )
    namespace["server"] = server
    print(f"ssh -p {arguments.port} 127.0.0.1")
    server.run()


if __name__ == "__main__":
    main()
