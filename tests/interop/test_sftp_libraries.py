"""The SFTP of paramiko, asyncssh and libssh."""

from __future__ import annotations

import asyncio
import os
import random
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.interop.clients import AsyncSsh, LibSsh, Paramiko
from tests.interop.support import MIB, SECONDS, Served, make_blob
from tests.interop.tools import contents, digest, make_tree


@pytest.fixture
def sftp(files: Served) -> Iterator[Any]:
    """Paramiko's SFTPClient."""
    with Paramiko().login(files) as transport:
        import paramiko

        client = paramiko.SFTPClient.from_transport(transport)
        assert client is not None
        client.get_channel().settimeout(SECONDS)
        yield client
        client.close()


def test_paramiko_moves_files(sftp: Any, tmp_path: Path) -> None:
    blob = make_blob(tmp_path / "blob", 3 * MIB + 5)
    told: list[tuple[int, int]] = []
    attributes = sftp.put(str(blob.path), str(tmp_path / "there"), callback=lambda *numbers: told.append(numbers))
    assert (attributes.st_size, told[-1]) == (len(blob.data), (len(blob.data), len(blob.data)))
    assert digest(tmp_path / "there") == blob.sha256
    sftp.get(str(tmp_path / "there"), str(tmp_path / "back"))
    assert digest(tmp_path / "back") == blob.sha256
    sftp.get(str(tmp_path / "there"), str(tmp_path / "slowly"), prefetch=False)
    assert digest(tmp_path / "slowly") == blob.sha256


def test_paramiko_reads_and_writes_in_pieces(sftp: Any, tmp_path: Path) -> None:
    blob = make_blob(tmp_path / "blob", MIB)
    source = random.Random(1)
    pieces = [(source.randrange(MIB), source.randrange(1, 60_000)) for _ in range(50)]
    with sftp.open(str(blob.path), "rb") as opened:
        read = list(opened.readv(pieces))
    assert read == [blob.data[offset : offset + count] for offset, count in pieces]
    with sftp.open(str(blob.path), "rb") as opened:
        opened.prefetch(MIB)
        opened.seek(500_000)
        assert opened.read(1000) == blob.data[500_000:501_000]
        opened.seek(-10, 2)
        assert opened.read() == blob.data[-10:]
    path = str(tmp_path / "made")
    with sftp.open(path, "wx") as opened:
        opened.set_pipelined(pipelined=True)
        for at in range(0, MIB, 10_000):
            opened.write(blob.data[at : at + 10_000])
    assert Path(path).read_bytes() == blob.data
    with pytest.raises(OSError, match=r"Failure|exists"):
        sftp.open(path, "wx")
    with sftp.open(path, "r+") as opened:
        opened.truncate(100)
        opened.seek(90)
        opened.write(b"0123456789abc")
    with sftp.open(path, "a") as opened:
        opened.write(b"end")
        assert opened.stat().st_size == 106
        opened.chmod(0o600)
        opened.utime((1, 2))
    status = os.stat(path)
    assert (stat.S_IMODE(status.st_mode), status.st_atime, status.st_mtime) == (0o600, 1, 2)
    assert Path(path).read_bytes() == blob.data[:90] + b"0123456789abcend"


def test_paramiko_and_folders(sftp: Any, files: Served, tmp_path: Path) -> None:
    sftp.chdir(str(tmp_path))
    assert sftp.getcwd() == str(tmp_path)
    sftp.mkdir("folder", 0o750)
    assert stat.S_IMODE(sftp.stat("folder").st_mode) == 0o750
    for number in range(400):
        (tmp_path / f"folder/name {number}").write_bytes(bytes(number))
    found = {entry.filename: entry.st_size for entry in sftp.listdir_iter("folder")}
    assert found == {f"name {number}": number for number in range(400)}
    assert sorted(sftp.listdir("folder")) == sorted(found)
    sftp.symlink("folder/name 7", "soft")
    assert os.readlink(tmp_path / "soft") == "folder/name 7"
    assert (sftp.readlink("soft"), sftp.stat("soft").st_size) == ("folder/name 7", 7)
    assert stat.S_ISLNK(sftp.lstat("soft").st_mode)
    assert sftp.normalize("folder/../soft") == str(tmp_path / "folder/name 7")
    with pytest.raises(OSError, match=r"Failure|exists"):
        sftp.rename("folder/name 1", "folder/name 2")
    sftp.posix_rename("folder/name 1", "folder/name 2")
    assert (tmp_path / "folder/name 2").stat().st_size == 1
    sftp.truncate("folder/name 9", 4)
    sftp.utime("folder/name 9", (5, 6))
    sftp.chown("folder/name 9", os.geteuid(), os.getegid())
    assert (sftp.stat("folder/name 9").st_size, sftp.stat("folder/name 9").st_mtime) == (4, 6)
    with pytest.raises(FileNotFoundError):
        sftp.stat("nothing")
    with pytest.raises(OSError, match=r"not empty|Failure"):
        sftp.rmdir("folder")
    sftp.unlink("soft")
    assert not (tmp_path / "soft").is_symlink()


@asynccontextmanager
async def asyncssh_sftp(server: Served) -> AsyncIterator[tuple[Any, Any]]:
    async with AsyncSsh().connect(server) as connection, connection.start_sftp_client() as client:
        yield connection, client


def test_asyncssh_moves_trees(files: Served, tmp_path: Path) -> None:
    made = make_tree(tmp_path / "tree")
    wanted = contents(made, modes=True, times=True)
    blob = make_blob(tmp_path / "blob", 4 * MIB)

    async def work() -> None:
        async with asyncssh_sftp(files) as (_, sftp):
            await sftp.put(made, tmp_path / "there", recurse=True, preserve=True)
            await sftp.get(tmp_path / "there", tmp_path / "back", recurse=True, preserve=True)
            (tmp_path / "some").mkdir()
            (tmp_path / "up").mkdir()
            await sftp.mget(tmp_path / "there/*d*", tmp_path / "some", recurse=True)
            await sftp.mput(made / "[mp]*", tmp_path / "up")
            assert sorted(await sftp.glob(str(tmp_path / "there/**/-d*"))) == [
                str(tmp_path / "there/-dash"), str(tmp_path / "there/a/deep folder/-dash"),
            ]  # fmt: skip
            await sftp.put(blob.path, tmp_path / "large", max_requests=128, block_size=16_000)
            await sftp.get(tmp_path / "large", tmp_path / "large back", max_requests=128)
            assert sftp.version == 3
            assert sftp.supports_remote_copy
            await sftp.copy(tmp_path / "large", tmp_path / "copied", remote_only=True)
            await sftp.rmtree(tmp_path / "up")

    asyncio.run(asyncio.wait_for(work(), SECONDS))
    assert contents(tmp_path / "there", modes=True, times=True) == wanted
    assert contents(tmp_path / "back", modes=True, times=True) == wanted
    assert sorted(os.listdir(tmp_path / "some")) == ["-dash", "many.dots.tar.gz"]
    assert not (tmp_path / "up").exists()
    for name in ("large", "large back", "copied"):
        assert digest(tmp_path / name) == blob.sha256


def test_asyncssh_does_all_else(files: Served, tmp_path: Path) -> None:
    async def work() -> None:
        async with asyncssh_sftp(files) as (_, sftp):
            await sftp.chdir(tmp_path)
            await sftp.makedirs("a/b/c")
            async with sftp.open("a/f", "wb") as opened:
                await opened.write(b"0123456789" * 10_000)
                await opened.fsync()
            sizes = await asyncio.gather(*(_read(sftp, "a/f", at) for at in range(0, 100_000, 2_500)))
            assert b"".join(sizes) == b"0123456789" * 10_000
            async with sftp.open("a/f", "r+b") as opened:
                await opened.truncate(20)
                assert (await opened.stat()).size == 20
                assert (await opened.statvfs()).bsize == os.statvfs(tmp_path).f_bsize
            await sftp.link("a/f", "a/hard")
            await sftp.symlink("f", "a/soft")
            assert await sftp.realpath("a/b/../soft") == str(tmp_path / "a/f")
            assert (await sftp.statvfs("a")).blocks == os.statvfs(tmp_path).f_blocks
            await sftp.chmod("a/f", 0o600)
            await sftp.utime("a/f", (3, 4))
            found = {entry.filename: entry.attrs async for entry in sftp.scandir("a")}
            assert sorted(found) == [".", "..", "b", "f", "hard", "soft"]
            assert (found["f"].size, found["f"].mtime, found["f"].permissions & 0o777) == (20, 4, 0o600)
            assert await sftp.isdir("a/b")
            assert await sftp.islink("a/soft")
            await sftp.posix_rename("a/hard", "a/soft")
            await sftp.rename("a/soft", "a/moved")
            assert await sftp.getsize("a/moved") == 20
            assert sftp.limits.max_read_len >= 32768

    asyncio.run(asyncio.wait_for(work(), SECONDS))
    assert (tmp_path / "a/moved").read_bytes() == b"0123456789" * 2


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_asyncssh_makes_links(start: Any, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """It names the link before its target where it does not find OpenSSH in the server's version."""
    server = start(*flags)

    async def work() -> None:
        async with asyncssh_sftp(server) as (_, sftp):
            await sftp.chdir(tmp_path)
            await sftp.symlink("target", "soft")
            assert await sftp.readlink("soft") == "target"

    asyncio.run(asyncio.wait_for(work(), SECONDS))
    assert os.readlink(tmp_path / "soft") == "target"


async def _read(sftp: Any, path: str, offset: int) -> Any:
    async with sftp.open(path, "rb") as opened:
        return await opened.read(2_500, offset)


@pytest.mark.parametrize("processor", ["os", "scp"])
def test_asyncssh_by_scp(files: Served, start: Any, tmp_path: Path, processor: str) -> None:
    """Against the system's own scp, and against ours, which does nothing else."""
    server = files if processor == "os" else start("--exec", "scp")
    made = make_tree(tmp_path / "tree")
    wanted = contents(made, modes=True, times=True)

    async def work() -> None:
        async with AsyncSsh().connect(server) as connection:
            import asyncssh

            await asyncssh.scp(made, (connection, tmp_path / "there"), recurse=True, preserve=True)
            await asyncssh.scp((connection, tmp_path / "there"), tmp_path / "back", recurse=True, preserve=True)
            with pytest.raises(asyncssh.SFTPError, match="No such file"):
                await asyncssh.scp((connection, tmp_path / "nothing"), tmp_path / "x")

    asyncio.run(asyncio.wait_for(work(), SECONDS))
    assert contents(tmp_path / "there", modes=True, times=True) == wanted
    assert contents(tmp_path / "back", modes=True, times=True) == wanted


def test_libssh(files: Served, tmp_path: Path) -> None:
    blob = make_blob(tmp_path / "blob", MIB + 3)
    with LibSsh().login(files) as session:
        sftp = session.sftp_new()
        sftp.init()
        with sftp.open(str(tmp_path / "there"), os.O_WRONLY | os.O_CREAT, 0o604) as opened:
            for at in range(0, len(blob.data), 30_000):
                assert opened.write(blob.data[at : at + 30_000]) == len(blob.data[at : at + 30_000])
            opened.fsync()
        with sftp.open(str(tmp_path / "there"), os.O_RDONLY, 0) as opened:
            read = b"".join(piece for size, piece in opened if size > 0)
        assert read == blob.data
        # Like asyncssh's its order is OpenSSH's only for OpenSSH.
        sftp.symlink("there", str(tmp_path / "soft"))
        assert sftp.readlink(str(tmp_path / "soft")) in {"there", b"there"}
        sftp.rename(str(tmp_path / "there"), str(tmp_path / "moved"))
        with sftp.opendir(str(tmp_path)) as folder:
            names = {os.fsencode(entry.name) for entry in folder}
        assert names == {b".", b"..", b"blob", b"moved", b"soft"}
    assert os.readlink(tmp_path / "soft") == "there"
    assert digest(tmp_path / "moved") == blob.sha256
    assert (tmp_path / "moved").stat().st_mode & 0o777 == 0o604
