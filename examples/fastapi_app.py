"""SSH beside HTTP: a FastAPI application whose operators come in by ssh, in one process and on one event loop.

    python examples/fastapi_app.py
    curl http://127.0.0.1:8000/counter
    ssh -p 2222 127.0.0.1 add 5

Both see the same objects: no lock, no second process, no port for administration that speaks a protocol of its own.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

import dunnart


class Counter:
    """What the application is about."""

    def __init__(self) -> None:
        self.value = 0


def operations(counter: Counter) -> dunnart.server.AsyncHandler:
    """Make the handler that operators talk to."""

    async def operate(session: dunnart.Session) -> int:
        if session.command is not None:
            return await run(session, session.command)
        await session.write("show, or add NUMBER; control-D ends\n")
        async for line in session:
            await run(session, line)
        return 0

    async def run(session: dunnart.Session, line: str) -> int:
        match line.split():
            case ["show"]:
                pass
            case ["add", number] if number.lstrip("-").isdecimal():
                counter.value += int(number)
            case _:
                await session.stderr.write(f"no such command: {line}\n")
                return 2
        await session.write(f"{counter.value}\n")
        return 0

    return operate


def application(ssh: dunnart.Server, counter: Counter) -> FastAPI:
    """Make the application; its SSH server starts and stops with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with ssh:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/counter")
    async def show() -> dict[str, int]:
        return {"counter": counter.value, "operators": ssh.connections}

    @app.post("/counter")
    async def add(number: int) -> dict[str, int]:
        counter.value += number
        return await show()

    return app


def main() -> None:
    """Serve both, until control-C."""
    parser = argparse.ArgumentParser(description="SSH beside HTTP.")
    parser.add_argument("--port", type=int, default=2222, help="for SSH")
    parser.add_argument("--http-port", type=int, default=8000)
    parser.add_argument("--keys", default="~/.ssh/id_ed25519.pub", help="who may operate: public keys, one a line")
    arguments = parser.parse_args()
    try:
        with open(os.path.expanduser(arguments.keys), encoding="utf-8") as file:
            keys = dunnart.PublicKeys(file.read())
    except OSError as error:
        parser.error(f"no public keys: {error}; name a file of them with --keys")
    counter = Counter()
    ssh = dunnart.Server(
        operations(counter),
        host_keys=[dunnart.PrivateKey.load_or_generate("example_host_key")],
        authenticators=[keys],
        listen=f"127.0.0.1:{arguments.port}",
    )
    print(f"ssh -p {arguments.port} 127.0.0.1")
    uvicorn.run(application(ssh, counter), host="127.0.0.1", port=arguments.http_port)


if __name__ == "__main__":
    main()
