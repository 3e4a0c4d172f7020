"""The examples of the how-to do what it says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import dunnart
from dunnart.client import connect
from dunnart.errors import AuthenticationFailed
from tests.client.support import HOST_KEY, KEY
from tests.docs.pages import ROOT, modules
from tests.runtime.driver import USER as ME
from tests.runtime.driver import serving

PAGE = ROOT / "docs" / "how-to" / "use-the-client.md"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which ssh would find its files, and no agent."""
    (tmp_path / ".ssh").mkdir()
    file = tmp_path / ".ssh" / "id_ed25519"
    file.touch(0o600)
    file.write_bytes(KEY.openssh())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


async def test_the_examples(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ((_, code),) = modules(PAGE).items()
    page: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, PAGE, "exec"), page)
    options: dict[str, Any] = {"authenticators": (dunnart.PublicKeys(KEY.public.line()),), "host_keys": (HOST_KEY,)}
    async with serving(**options) as server:

        def there(host: str, *, user: str = ME, **more: Any) -> Any:
            return connect(host, server.address[1], user=ME if user == "deploy" else user, **more)

        page["connect"] = there
        async with page["first_time"]("127.0.0.1") as connection:
            assert await page["sort"](connection, ["b", "a"]) == b"a\nb\n"
            seen = b"".join([data async for data in page["watch"](connection, "stty size; echo $TERM")])
            assert seen == b"40 120\r\nxterm\r\n"
        assert f"shows {HOST_KEY.public.fingerprint()}" in capsys.readouterr().out
        assert " up " in await page["uptime"]("127.0.0.1")  # it is known by now
        async with page["by_key"]("127.0.0.1", home / ".ssh" / "id_ed25519") as connection:
            assert not connection.closed

        class Nowhere:
            async def __aenter__(self) -> None:
                assert gone_through == []

            async def __aexit__(self, *_: object) -> None:
                pass

        gone_through: list[object] = []

        def stepwise(host: str, **options: object) -> Any:
            if "through" not in options:
                return Nowhere()
            gone_through.append(options["through"])
            return there(host)

        page["connect"] = stepwise
        assert await page["inside"]("gateway", "127.0.0.1")
        assert gone_through == [None]
        page["connect"] = there
        monkeypatch.setattr(page["getpass"], "getpass", lambda _: "not asked for")
        with pytest.raises(AuthenticationFailed, match=r"alice@.*nothing to try.*offers: publickey"):
            await page["by_password"]("127.0.0.1")

        class Blocking:
            @staticmethod
            def connect(host: str) -> Any:
                from dunnart.client import blocking

                return blocking.connect(host, server.address[1], user=ME)

        page["blocking"] = Blocking
        assert " up " in (await asyncio.to_thread(page["uptimes"], ["127.0.0.1"]))["127.0.0.1"]
