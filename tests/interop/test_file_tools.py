"""Programs that move files: each of them both ways, compared byte by byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.interop.conftest import Serve
from tests.interop.support import MIB, Served, make_blob
from tests.interop.tools import HOST, contents, digest, make_tree, run, ssh, ssh_config


def url(server: Served, path: Path) -> str:
    return f"sftp://{server.user}@127.0.0.1:{server.port}{path}"


# OpenSSH's own.


def test_openssh_sftp_resumes_links_and_lists(files: Served, tmp_path: Path) -> None:
    blob = make_blob(tmp_path / "blob", 2 * MIB)
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    (there / "up").write_bytes(blob.data[: MIB + 1])
    back.write_bytes(blob.data[:12345])
    make_tree(tmp_path / "tree")
    said = run(files, "sftp", "-F", ssh_config(files), "-b", "-", HOST, said=f"""\
cd {there}
reput {blob.path} up
reget up {back}
put -rp {tmp_path}/tree copy
get -rp copy {tmp_path}/tree back
ln up hard
ln -s up soft
symlink nowhere dangling
ls -1 cop*
ls -la
df -h
copy up copied
chmod 604 copied
rename copied renamed
mkdir made
-rmdir copy
rmdir made
rm dangling
""".replace(f"{tmp_path}/tree back", f'"{tmp_path}/tree back"').encode())  # fmt: skip
    assert digest(there / "up") == digest(back) == digest(there / "renamed") == blob.sha256
    assert (there / "renamed").stat().st_mode & 0o7777 == 0o604
    tree = contents(tmp_path / "tree", modes=True, times=True)
    assert contents(there / "copy", modes=True, times=True) == tree
    assert contents(tmp_path / "tree back", modes=True, times=True) == tree
    assert os.readlink(there / "soft") == "up"
    assert (there / "hard").samefile(there / "up")
    assert sorted(os.listdir(there)) == ["copy", "hard", "renamed", "soft", "up"]
    assert "copy/many.dots.tar.gz" in said
    listed = {line.split()[-1]: line.split()[4] for line in said.splitlines() if line.startswith("-rw")}
    assert listed["up"] == str(2 * MIB)
    assert "%Capacity" in said


def test_openssh_scp_by_the_systems_own_program(files: Served, tmp_path: Path) -> None:
    """The protocol of old by the exec processor "os": the server runs `scp -t` and `scp -f`."""
    there, back = tmp_path / "there", tmp_path / "back"
    made = contents(make_tree(tmp_path / "tree"), modes=True, times=True)
    run(files, "scp", "-O", "-F", ssh_config(files), "-rp", tmp_path / "tree", f"{HOST}:{there}")
    run(files, "scp", "-O", "-F", ssh_config(files), "-rp", f"{HOST}:{there}", back)
    assert contents(there, modes=True, times=True) == contents(back, modes=True, times=True) == made


@pytest.mark.parametrize("flags", ["-3", "-3O"])
def test_openssh_scp_from_there_to_there(files: Served, tmp_path: Path, flags: str) -> None:
    made = contents(make_tree(tmp_path / "tree"), modes=True, times=True)
    run(files, "scp", flags, "-F", ssh_config(files), "-rp", f"{HOST}:{tmp_path}/tree", f"{HOST}:{tmp_path}/copy")
    assert contents(tmp_path / "copy", modes=True, times=True) == made


# PuTTY's.


def putty(server: Served) -> list[str]:
    key, fingerprint = server.keys.putty("ed25519"), server.host_keys["ssh-ed25519"]
    return ["-batch", "-P", str(server.port), "-i", key, "-hostkey", fingerprint]


@pytest.mark.parametrize("protocol", ["-sftp", "-scp"])
def test_pscp(files: Served, tmp_path: Path, protocol: str) -> None:
    there = f"{files.user}@127.0.0.1:{tmp_path}"
    made = contents(make_tree(tmp_path / "tree"), times=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "back").mkdir()
    run(files, "pscp", protocol, *putty(files), "-r", "-p", tmp_path / "tree", f"{there}/there")
    run(files, "pscp", protocol, *putty(files), "-r", "-p", f"{there}/there/tree", tmp_path / "back")
    assert contents(tmp_path / "there/tree", times=True) == contents(tmp_path / "back/tree", times=True) == made
    listed = run(files, "pscp", protocol, *putty(files), "-ls", f"{there}/tree/")
    assert "many.dots.tar.gz" in listed


def test_psftp(files: Served, tmp_path: Path) -> None:
    blob = make_blob(tmp_path / "blob", MIB + 1)
    made = contents(make_tree(tmp_path / "tree"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there/part").write_bytes(blob.data[:70_001])
    (tmp_path / "back").write_bytes(blob.data[:5])
    script = tmp_path / "script"
    script.write_text(f"""\
cd {tmp_path}/there
lcd {tmp_path}
reput blob part
reget part back
mput -r tree
get -r tree fetched
ren part whole
chmod 600 whole
dir
mkdir made made2
rmdir made2
del tree/pl*
mv made moved
""")
    said = run(files, "psftp", *putty(files), "-b", script, f"{files.user}@127.0.0.1")
    there = tmp_path / "there"
    assert digest(there / "whole") == digest(tmp_path / "back") == blob.sha256, said
    assert contents(tmp_path / "fetched") == made
    assert (there / "whole").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(there)) == ["moved", "tree", "whole"]
    assert not (there / "tree/plain").exists()
    assert f" {len(blob.data)} " in said


# lftp.


def lftp(server: Served, *commands: str) -> str:
    settings = f"set sftp:connect-program '{ssh(server)} -a -x'; set net:max-retries 1; set cmd:fail-exit true; "
    login = f"open -u {server.user},unused sftp://127.0.0.1:{server.port}; "
    return run(server, "lftp", "--norc", "-c", settings + login + "; ".join(commands), variables={"LC_ALL": "C.UTF-8"})


def test_lftp_mirrors_both_ways(files: Served, tmp_path: Path) -> None:
    made = make_tree(tmp_path / "tree", links=True)
    for number in range(60):
        (made / f"small{number}").write_bytes(b"%d" % number)
    wanted = contents(made, modes=True, times=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/stale").write_bytes(b"old")
    lftp(files, f"mirror -R --no-umask --parallel=4 --delete '{made}' '{tmp_path}/there'",
         f"mirror --no-umask --parallel=4 --use-pget-n=3 '{tmp_path}/there' '{tmp_path}/back'")  # fmt: skip
    assert contents(tmp_path / "there", modes=True, times=True) == wanted
    assert contents(tmp_path / "back", modes=True, times=True) == wanted
    again = lftp(files, f"mirror -R --no-umask --dry-run --delete '{made}' '{tmp_path}/there'")
    assert [line.split()[0] for line in again.splitlines()] == ["mkdir"]  # of the folder itself, whatever is there


def test_lftp_resumes_and_fetches_in_pieces(files: Served, tmp_path: Path) -> None:
    blob = make_blob(tmp_path / "blob", 3 * MIB)
    (tmp_path / "resumed").write_bytes(blob.data[:700_001])
    (tmp_path / "up").write_bytes(blob.data[:MIB])
    said = lftp(
        files, f"cd '{tmp_path}'; lcd '{tmp_path}'", "get -c blob -o resumed", "pget -n 4 blob -o pieces",
        "put -c blob -o up", "mkdir made", "mv up made/moved", "chmod 640 made/moved", "ln -s moved made/soft",
        "cat made/moved | sha256sum",
    )  # fmt: skip
    for name in ("resumed", "pieces", "made/moved"):
        assert digest(tmp_path / name) == blob.sha256, name
    assert blob.sha256 in said
    assert os.readlink(tmp_path / "made/soft") == "moved"
    assert (tmp_path / "made/moved").stat().st_mode & 0o777 == 0o640


# rclone.


def rclone(server: Served, *words: str | Path) -> str:
    remote = {
        "TYPE": "sftp", "HOST": "127.0.0.1", "PORT": str(server.port), "USER": server.user,
        "KEY_FILE": server.keys.path("ed25519"), "KNOWN_HOSTS_FILE": server.known_hosts,
    }  # fmt: skip
    settings = {f"RCLONE_CONFIG_THERE_{name}": value for name, value in remote.items()}
    return run(server, "rclone", "--config", "", "--retries", "1", *words, variables=settings)


def test_rclone_syncs_both_ways_and_checks(files: Served, tmp_path: Path) -> None:
    made = make_tree(tmp_path / "tree")
    (made / "empty").rmdir()
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    (there / "stale").write_bytes(b"old")
    rclone(files, "sync", made, f"there:{there}")
    listed = rclone(files, "ls", f"there:{there}")
    assert sorted(line.split(maxsplit=1)[1] for line in listed.splitlines()) == sorted(
        name for name, entry in contents(made).items() if entry.kind == "file"
    )
    checked = rclone(files, "check", made, f"there:{there}")
    assert "0 differences found" in checked
    assert "hashes could not be checked" not in checked
    rclone(files, "sync", f"there:{there}", back)
    assert contents(there, times=True) == contents(back, times=True) == contents(made, times=True)
    (there / "plain").write_bytes(b"x")
    with pytest.raises(AssertionError, match="1 differences found"):
        rclone(files, "check", made, f"there:{there}")


def test_rclone_copies_many_at_once(files: Served, tmp_path: Path) -> None:
    made = tmp_path / "many"
    made.mkdir()
    for number in range(120):
        (made / f"{number:03}").write_bytes(os.urandom(number * 100))
    make_blob(made / "large", 2 * MIB)
    rclone(files, "copy", "--transfers", "8", "--checkers", "8", made, f"there:{tmp_path}/there")
    rclone(files, "copy", "--transfers", "8", f"there:{tmp_path}/there", tmp_path / "back")
    assert contents(tmp_path / "there", times=True) == contents(tmp_path / "back", times=True)
    assert contents(tmp_path / "back", times=True) == contents(made, times=True)
    rclone(files, "moveto", f"there:{tmp_path}/there/large", f"there:{tmp_path}/there/moved")
    assert digest(tmp_path / "there/moved") == digest(made / "large")
    assert '"total"' in rclone(files, "about", "--json", f"there:{tmp_path}")
    rclone(files, "purge", f"there:{tmp_path}/there")
    assert not (tmp_path / "there").exists()


# rsync.


def rsync(server: Served, *words: str | Path) -> str:
    return run(server, "rsync", "-e", ssh(server), *words)


def test_rsync_both_ways(files: Served, tmp_path: Path) -> None:
    made = make_tree(tmp_path / "tree", links=True)
    for number in range(300):
        (made / f"small{number}").write_bytes(b"%d" % number)
    wanted = contents(made, modes=True, times=True)
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    (there / "stale").write_bytes(b"old")
    rsync(files, "-a", "--delete", f"{made}/", f"{HOST}:{there}/")
    assert contents(there, modes=True, times=True) == wanted
    rsync(files, "-a", "--delete", f"{HOST}:{there}/", f"{back}/")
    assert contents(back, modes=True, times=True) == wanted
    assert rsync(files, "-a", "--delete", "--itemize-changes", f"{made}/", f"{HOST}:{there}/") == ""


def test_rsync_sends_what_differs_and_goes_on_with_a_part(files: Served, tmp_path: Path) -> None:
    blob = make_blob(tmp_path / "blob", 4 * MIB)
    there = tmp_path / "there"
    there.write_bytes(blob.data[: 2 * MIB] + bytes(1000) + blob.data[2 * MIB + 1000 :])
    os.utime(there, (1, 1))
    told = rsync(files, "-a", "--no-whole-file", "--stats", blob.path, f"{HOST}:{there}")
    assert digest(there) == blob.sha256
    literal = next(line.split()[2] for line in told.splitlines() if line.startswith("Literal data"))
    assert int(literal.replace(",", "")) < MIB
    part = tmp_path / "part"
    part.write_bytes(blob.data[: 3 * MIB])
    told = rsync(files, "--append-verify", "--partial", "--stats", f"{HOST}:{blob.path}", part)
    assert digest(part) == blob.sha256


# curl, which has libssh2.


def curl(server: Served, *words: str | Path) -> str:
    key = server.keys.path("ed25519")
    known = Path(server.known_hosts).read_text()
    hosts = server.folder / "client/.ssh"
    hosts.mkdir(parents=True, exist_ok=True)
    (hosts / "known_hosts").write_text(known)
    return run(server, "curl", "-sS", "--key", key, "--pubkey", f"{key}.pub", *words)


def test_curl(files: Served, tmp_path: Path) -> None:
    blob = make_blob(tmp_path / "blob", 2 * MIB + 3)
    there = tmp_path / "there"
    curl(files, "--ftp-create-dirs", "-T", blob.path, url(files, there / "new/up"))
    assert digest(there / "new/up") == blob.sha256
    curl(files, "-o", tmp_path / "whole", url(files, there / "new/up"))
    assert digest(tmp_path / "whole") == blob.sha256
    curl(files, "-r", "100000-199999", "-o", tmp_path / "range", url(files, blob.path))
    assert (tmp_path / "range").read_bytes() == blob.data[100_000:200_000]
    curl(files, "-r", "-1000", "-o", tmp_path / "tail", url(files, blob.path))
    assert (tmp_path / "tail").read_bytes() == blob.data[-1000:]
    (tmp_path / "resumed").write_bytes(blob.data[:MIB])
    curl(files, "-C", "-", "-o", tmp_path / "resumed", url(files, blob.path))
    assert digest(tmp_path / "resumed") == blob.sha256
    (there / "half").write_bytes(blob.data[:MIB])
    curl(files, "-C", "-", "-T", blob.path, url(files, there / "half"))
    assert digest(there / "half") == blob.sha256
    (there / "log").write_bytes(b"one\n")
    (tmp_path / "line").write_bytes(b"two\n")
    curl(files, "-a", "-T", tmp_path / "line", url(files, there / "log"))
    assert (there / "log").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("processor", ["os", "scp"])
def test_curl_by_scp(files: Served, start: Serve, tmp_path: Path, processor: str) -> None:
    server = files if processor == "os" else start("--exec", "scp")
    blob = make_blob(tmp_path / "blob", 2 * MIB + 3)
    there = url(server, tmp_path / "with%20space").replace("sftp:", "scp:")
    curl(server, "-T", blob.path, there)
    assert digest(tmp_path / "with space") == blob.sha256
    curl(server, "-o", tmp_path / "back", there)
    assert digest(tmp_path / "back") == blob.sha256
    run(server, "curl", "-sS", "--key", server.keys.path("ed25519"), there + "2", status=78)


def test_curl_lists_and_gives_orders(files: Served, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    quotes = [f"mkdir {tmp_path}/made", f"rename {tmp_path}/a {tmp_path}/made/b", f"chmod 600 {tmp_path}/made/b",
              f"symlink b {tmp_path}/made/soft", f"statvfs {tmp_path}", "pwd", f"*rm {tmp_path}/nothing"]  # fmt: skip
    words = [word for quote in quotes for word in ("-Q", quote)]
    listed = curl(files, *words, url(files, tmp_path / "made") + "/")
    assert (tmp_path / "made/b").stat().st_mode & 0o777 == 0o600
    assert os.readlink(tmp_path / "made/soft") == "b"
    assert {line.split()[0] for line in listed.splitlines() if line.endswith(" b")} >= {"-rw-------"}
    listed = curl(files, "-l", url(files, tmp_path / "made") + "/")
    assert {".", "..", "b", "soft"} == set(listed.split())
    run(files, "curl", "-sS", "--key", files.keys.path("ed25519"), url(files, tmp_path / "nothing"), status=78)
