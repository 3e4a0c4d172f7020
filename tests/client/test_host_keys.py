"""No server is trusted by mistake: known, unknown, changed, revoked, hashed, other ports."""

from __future__ import annotations

from pathlib import Path

import pytest

import dunnart
from dunnart.client import TrustAnyHostKey, UnknownHost
from dunnart.errors import ConfigError, HostKeyError
from dunnart.keys import KnownHosts
from tests.client.support import HOST_KEY, serving

OTHER = dunnart.PrivateKey.generate("ed25519")
LINE = HOST_KEY.public.line()


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize("hosts", ["[127.0.0.1]:{port}", "127.0.0.1", "[127.0.0.*]:{port},elsewhere"])
async def test_a_known_host_is_trusted(tmp_path: Path, hosts: str) -> None:
    async with serving() as server:
        file = write(tmp_path / "known", "# comment", f"{hosts.format(port=server.port)} {LINE}")
        async with server.connect(known_hosts=file) as connection:
            assert (await connection.run("echo hello")).stdout == b"hello"


async def test_a_hashed_name_is_known() -> None:
    async with serving() as server:
        known = KnownHosts()
        line = known.add("127.0.0.1", server.port, HOST_KEY.public, hashed=True)
        assert line.startswith("|1|")
        async with server.connect(known_hosts=KnownHosts(line)) as connection:
            assert not connection.closed


async def test_any_of_several_files_will_do(tmp_path: Path) -> None:
    async with serving() as server:
        file = write(tmp_path / "known", f"127.0.0.1 {LINE}")
        async with server.connect(known_hosts=[tmp_path / "missing", file]) as connection:
            assert not connection.closed


async def test_an_unknown_host_is_refused_and_the_line_to_add_is_told() -> None:
    async with serving() as server:
        with pytest.raises(HostKeyError) as caught:
            await server.connect(known_hosts=KnownHosts())
        assert f"[127.0.0.1]:{server.port} {LINE}" in str(caught.value)
        assert HOST_KEY.public.fingerprint() in str(caught.value)


async def test_a_changed_key_names_the_line(tmp_path: Path) -> None:
    async with serving() as server:
        file = write(tmp_path / "known", "# one", f"[127.0.0.1]:{server.port} {OTHER.public.line()}")

        async def trust(_: UnknownHost) -> bool:
            raise AssertionError("a changed key is nobody's to accept")

        with pytest.raises(HostKeyError) as caught:
            await server.connect(known_hosts=file, unknown_host=trust)
        text = str(caught.value)
        assert "has changed" in text
        assert f"{file}:2 " in text
        assert HOST_KEY.public.fingerprint() in text
        assert OTHER.public.fingerprint() in text
        assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in text


async def test_a_revoked_key_is_refused_though_it_is_known(tmp_path: Path) -> None:
    async with serving() as server:
        file = write(tmp_path / "known", f"127.0.0.1 {LINE}")
        revoked = write(tmp_path / "revoked", f"@revoked * {LINE}")
        with pytest.raises(HostKeyError, match=f"@revoked in {revoked}"):
            await server.connect(known_hosts=[file, revoked])


@pytest.mark.parametrize("answer", [True, False])
async def test_a_callback_decides_about_an_unknown_host(answer: bool) -> None:
    asked: list[UnknownHost] = []

    async def decide(found: UnknownHost) -> bool:
        asked.append(found)
        return answer

    async with serving() as server:
        if answer:
            async with server.connect(known_hosts=KnownHosts(), unknown_host=decide) as connection:
                assert not connection.closed
        else:
            with pytest.raises(HostKeyError, match=r"was not accepted.*add this line"):
                await server.connect(known_hosts=KnownHosts(), unknown_host=decide)
        assert asked == [UnknownHost("127.0.0.1", server.port, HOST_KEY.public)]
        assert asked[0].fingerprint == HOST_KEY.public.fingerprint()


@pytest.mark.parametrize("hashed", [True, False])
async def test_a_remembered_host_is_known_the_next_time(tmp_path: Path, hashed: bool) -> None:
    file = tmp_path / "new" / "known_hosts"

    async def remember(found: UnknownHost) -> bool:
        found.remember(file, hashed=hashed)
        return True

    async with serving() as server:
        async with server.connect(known_hosts=file, unknown_host=remember):
            pass
        async with server.connect(known_hosts=file) as connection:
            assert not connection.closed
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().startswith("|1|" if hashed else "[127.0.0.1]:")


def test_a_last_line_without_an_end_is_not_continued(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(f"one.example {LINE}")
    UnknownHost("two.example", 22, OTHER.public).remember(file)
    known = KnownHosts(file.read_text())
    assert known.keys("one.example", 22) == (HOST_KEY.public,)
    assert known.keys("two.example", 22) == (OTHER.public,)


def test_a_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        UnknownHost("one.example", 22, OTHER.public).remember(tmp_path)


async def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    async with serving() as server:
        with pytest.raises(ConfigError, match=f"{tmp_path}: cannot be read"):
            server.connect(known_hosts=tmp_path)


async def test_the_check_can_be_switched_off_in_so_many_words() -> None:
    async with serving() as server, server.connect(known_hosts=TrustAnyHostKey()) as connection:
        assert not connection.closed


async def test_the_server_is_asked_for_a_key_that_is_known() -> None:
    rsa = dunnart.PrivateKey.generate("rsa", 2048)
    async with serving(host_keys=[HOST_KEY, rsa]) as server:
        known = KnownHosts(f"127.0.0.1 {rsa.public.line()}\n")
        async with server.connect(known_hosts=known) as connection:
            assert not connection.closed
