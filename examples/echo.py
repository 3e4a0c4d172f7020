"""Echo: what you type comes back. The least that a server needs: a handler, a host key, somebody to let in.

    python examples/echo.py
    ssh -p 2222 127.0.0.1

Everybody may come in, by any name.
"""

from __future__ import annotations

import argparse

import dunnart


async def echo(session: dunnart.Session) -> None:
    """Serve one visitor."""
    await session.write(f"Hello {session.user}, type something; control-D ends.\n")
    async for line in session:
        await session.write(f"{line}\n")


def main() -> None:
    """Serve everybody, until control-C."""
    parser = argparse.ArgumentParser(description="An echo server.")
    parser.add_argument("--port", type=int, default=2222)
    port = parser.parse_args().port
    server = dunnart.Server(
        echo,
        host_keys=[dunnart.PrivateKey.load_or_generate("example_host_key")],
        authenticators=[dunnart.AllowAnyone()],
        listen=f"127.0.0.1:{port}",
    )
    print(f"ssh -p {port} 127.0.0.1")
    server.run()


if __name__ == "__main__":
    main()
