"""A router that is none: for trying out what configures network devices, by hand or with netmiko, pexpect and the like.

    python examples/network_device.py --password secret
    ssh -p 2222 admin@127.0.0.1

It knows `enable`, `show version`, `show running-config`, `terminal length N`, `configure terminal`, `hostname NAME`,
`end` and `exit`. With --legacy it speaks the algorithms of devices that nobody updates any more.
"""

from __future__ import annotations

import argparse
import hmac

import dunnart
from dunnart.line_editor import LineEditor

_VERSION = """Marsupial Operating System, Version 15.2(4)M1
{0} uptime is 4 weeks, 2 days, 1 hour
Processor board ID DUN0815
"""
_CONFIGURATION = "hostname {0}\n!\n" + "".join(f"interface GigabitEthernet0/{n}\n no shutdown\n!\n" for n in range(16))
_USER, _PRIVILEGED, _CONFIGURING = ">", "#", "(config)#"


class Device:
    """What everybody who is logged in sees and changes."""

    def __init__(self, secret: str) -> None:
        self.hostname = "router"
        self._secret = secret.encode()

    def is_secret(self, password: str) -> bool:
        """Whether the password is right; takes as long if it is nearly so."""
        return hmac.compare_digest(password.encode(), self._secret)

    async def serve(self, session: dunnart.Session) -> None:
        """Serve one administrator."""
        await Line(self, session).serve()


class Line:
    """One administrator's session."""

    def __init__(self, device: Device, session: dunnart.Session) -> None:
        self._device = device
        self._session = session
        self._mode = _USER
        self._rows = 0
        if session.terminal is not None:
            self._rows = session.terminal.rows
            # Devices echo and no more; what drives them trips over sequences that move a cursor.
            session.editor = LineEditor(columns=session.terminal.columns, term="dumb")

    async def serve(self) -> None:
        """Read commands and do them."""
        while self._mode:
            try:
                line = await self._session.readline(self._device.hostname + self._mode)
            except dunnart.Interrupted:
                continue
            if words := line.split():
                await self._do(words)

    async def _do(self, words: list[str]) -> None:
        match self._mode, words:
            case _, ["exit"]:
                self._mode = _PRIVILEGED if self._mode == _CONFIGURING else ""
            case ">", ["enable"]:
                if self._device.is_secret(await self._session.readline("Password: ", echo=False)):
                    self._mode = _PRIVILEGED
                else:
                    await self._session.write("% Bad secrets\n\n")
            case ">" | "#", ["show", "version"]:
                await self._page(_VERSION.format(self._device.hostname))
            case ">" | "#", ["terminal", "length", rows] if rows.isdecimal():
                self._rows = int(rows)
            case ">" | "#", ["terminal", "width", columns] if columns.isdecimal():
                pass
            case "#", ["show", "running-config"]:
                await self._page(_CONFIGURATION.format(self._device.hostname))
            case "#", ["configure", "terminal"]:
                await self._session.write("Enter configuration commands, one per line.\n")
                self._mode = _CONFIGURING
            case "(config)#", ["hostname", name]:
                self._device.hostname = name
            case "(config)#", ["end"]:
                self._mode = _PRIVILEGED
            case _:
                await self._session.write("% Invalid input detected\n\n")

    async def _page(self, text: str) -> None:
        lines = text.splitlines(keepends=True)
        page = more = max(self._rows - 1, 1) if self._rows else len(lines)
        while lines:
            await self._session.write("".join(lines[:more]))
            lines = lines[more:]
            if not lines:
                return
            await self._session.write(" --More-- ")
            more = {b" ": page, b"\r": 1, b"\n": 1}.get(await self._session.read(1), 0)
            await self._session.write("\r          \r")
            if not more:
                return


def main() -> None:
    """Be a router, until control-C."""
    parser = argparse.ArgumentParser(description="A fake router.")
    parser.add_argument("--port", type=int, default=2222)
    parser.add_argument("--password", required=True, help="of admin, and of `enable`")
    parser.add_argument("--legacy", action="store_true", help="offer old algorithms too")
    arguments = parser.parse_args()
    device = Device(arguments.password)
    passwords = dunnart.PasswordCallback(lambda user, password: user == "admin" and device.is_secret(password))
    host_keys = [dunnart.PrivateKey.load_or_generate("example_host_key")]
    if arguments.legacy:
        host_keys.append(dunnart.PrivateKey.load_or_generate("example_host_key_rsa", "rsa"))
    server = dunnart.Server(
        shell=device.serve,
        host_keys=host_keys,
        authenticators=[passwords],
        algorithms="legacy" if arguments.legacy else "default",
        listen=f"127.0.0.1:{arguments.port}",
    )
    print(f"ssh -p {arguments.port} admin@127.0.0.1")
    server.run()


if __name__ == "__main__":
    main()
