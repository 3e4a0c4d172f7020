"""`dunnart dropbearkey` and `dunnart dropbearconvert` beside Dropbear's own, ssh-keygen and puttygen."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from dunnart.keys import PrivateKey
from dunnart.tools import dropbear, dropbearconvert, dropbearkey
from dunnart.tools import main as tool
from dunnart.tools.main import applet
from tests.interop.support import SECONDS, Keys, environment, program


def run(*command: str | Path, status: int = 0) -> str:
    line = [program(str(command[0])), *map(str, command[1:])]
    done = subprocess.run(
        line, capture_output=True, text=True, env=environment(Path("/")), timeout=SECONDS, check=False
    )  # fmt: skip
    assert done.returncode == status, done
    return done.stdout


def public(line: str) -> list[str]:
    """The type and the base64 in what a program printed."""
    return next(each.split()[:2] for each in line.splitlines() if each.startswith(("ssh-", "ecdsa-")))


def test_keys_of_both_are_the_others_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, *more in (["ed25519"], ["ecdsa", "-s", "384"], ["rsa", "-s", "2048"]):
        ours, theirs = tmp_path / f"ours-{kind}", tmp_path / f"theirs-{kind}"
        assert dropbearkey.run(["-t", kind, "-f", str(ours), "-C", "a comment", *more]) == 0
        captured = capsys.readouterr()
        assert f"bit {kind} key, this may take a while..." in captured.err
        real = run("dropbearkey", "-t", kind, *more, "-f", theirs)
        assert run("dropbearkey", "-y", "-f", ours).splitlines()[2] == captured.out.splitlines()[2]  # the fingerprint
        assert public(captured.out) == public(run("dropbearkey", "-y", "-f", ours))
        assert ours.with_name(f"{ours.name}.pub").read_text().split() == [*public(captured.out), "a", "comment"]
        assert ours.stat().st_mode & 0o777 == 0o600
        theirs.chmod(0o600)
        assert dropbearkey.run(["-y", "-f", str(theirs)]) == 0
        # Word for word, comment and fingerprint too.
        assert capsys.readouterr().out == real[real.index("Public key portion") :]


def test_what_dropbearkey_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"\0\0\0\x08ssh-frob")
    there.chmod(0o600)
    new = str(tmp_path / "new")
    for arguments, said in [
        (["-t", "ed25519"], "which file?"), (["-t", "frob", "-f", new], "unknown key type 'frob'"),
        (["-t", "ecdsa", "-s", "100", "-f", new], "of 100 bits"),
        (["-t", "rsa", "-s", "x", "-f", new], "'x' is no number"),
        (["-t", "rsa", "-s", "20000", "-f", new], "2048 to 4096 bits"),
        (["-t", "ed25519", "-f", str(there)], "File exists"),
        (["-t", "ed25519", "-f", "/nowhere/key"], "/nowhere/key: No such file"),
        (["-y", "-f", "/nowhere/key"], "No such file"),
        (["-y", "-f", str(there)], "unsupported type"), (["-x"], "'-x'"),
    ]:  # fmt: skip
        status = 255 if "-y" in arguments else 1
        run("dropbearkey", *arguments, status=status)
        assert dropbearkey.run(arguments) == status
        captured = capsys.readouterr()
        assert (captured.out, said in captured.err) == ("", True), captured
        assert not Path(new).exists()
    for arguments in (["-t", "dss", "-f", new], ["-N", "secret", "-f", new], ["-t", "rsa", "-s", "1024", "-f", new]):
        assert dropbearkey.run(arguments) == 1  # the real one makes them, or knows the flag in later versions
    assert there.read_bytes() == b"\0\0\0\x08ssh-frob"


def test_conversion_there_and_back(keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("ed25519", "rsa", "ecdsa521"):
        before = Path(keys.path(kind))
        line = public(before.with_suffix(".pub").read_text())
        real = tmp_path / "real"
        run("dropbearconvert", "openssh", "dropbear", before, real)
        steps = ["openssh", "dropbear", "pkcs8", "putty", "openssh", "ppk2", "dropbear", "openssh"]
        steps += [] if kind == "ed25519" else ["pem", "openssh"]
        for number, (source, target) in enumerate(pairwise(steps)):
            after = tmp_path / f"{kind}{number}.{target}"
            assert dropbearconvert.run([source.rstrip("2"), target, str(before), str(after)]) == 0
            assert after.stat().st_mode & 0o777 == 0o600
            if target == "dropbear":
                assert after.read_bytes() == real.read_bytes()
                assert run("dropbearconvert", "dropbear", "openssh", after, tmp_path / "back") == ""
                (tmp_path / "back").unlink()
            elif target in {"putty", "ppk2"}:
                assert public(run("puttygen", after, "-O", "public-openssh")) == line
            elif (kind, target) != ("ed25519", "pkcs8"):  # which ssh-keygen knows since 9.6
                assert public(run("ssh-keygen", "-y", "-f", after)) == line
            before = after
        real.unlink()
    assert "Key is a ecdsa-sha2-nistp521 key\nWrote key to " in capsys.readouterr().err


def test_passphrases_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(dropbearconvert, "ask", lambda _question, hidden: "sesame" if hidden else None)
    (tmp_path / "passphrase").write_text("sesame\n")
    locked = tmp_path / "locked"
    key = PrivateKey.generate("ecdsa")
    locked.touch(0o600)
    locked.write_bytes(key.openssh("mine", "sesame", rounds=1))
    before = locked
    for source, target in [
        ("o", "putty"),
        ("ppk", "putty2"),
        ("putty", "pkcs8"),
        ("pkcs8", "openssh"),
        ("o", "dropbear"),
    ]:
        after = tmp_path / target
        assert dropbearconvert.run([source, target, str(before), str(after)]) == 0
        before = after
        if target.startswith("putty"):
            shown = run("puttygen", after, "-O", "public-openssh", "--old-passphrase", tmp_path / "passphrase")
            assert shown.split() == [*key.public.line().split(), "mine"]
        elif target != "dropbear":
            run("ssh-keygen", "-y", "-P", "", "-f", after, status=255)
            assert public(run("ssh-keygen", "-y", "-P", "sesame", "-f", after)) == key.public.line().split()
    assert "who can read the file has the key" in capsys.readouterr().err
    assert public(run("dropbearkey", "-y", "-f", before)) == key.public.line().split()


def test_what_dropbearconvert_refuses(keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, new = keys.path("ed25519"), str(tmp_path / "new")
    for arguments, said in [
        (["openssh", "dropbear", key], "four arguments"), (["x", "dropbear", key, new], "unknown key type 'x'"),
        (["openssh", "x", key, new], "unknown key type 'x'"),
        (["dropbear", "openssh", key, new], "no dropbear file, but openssh"),
        (["openssh", "dropbear", "/nowhere/key", new], "/nowhere/key: No such file"),
    ]:  # fmt: skip
        run("dropbearconvert", *arguments, status=1)
        assert dropbearconvert.run(arguments) == 1
        assert said in capsys.readouterr().err
    assert dropbearconvert.run(["openssh", "dropbear", key, key]) == 1  # Dropbear's does so since 2026.92
    assert "File exists" in capsys.readouterr().err
    assert dropbearconvert.run(["openssh", "pem", key, new]) == 1
    assert "no traditional PEM file holds" in capsys.readouterr().err
    assert not Path(new).exists()


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tool, "without_tls", lambda: None)  # this process is the other tests' too
    for run_program in (dropbear.run, dropbearkey.run, dropbearconvert.run):
        assert run_program(["--help"]) == 0
        assert capsys.readouterr().out.startswith("usage: dropbear")


def test_programs_by_the_name_of_a_link() -> None:
    for path, command in [
        ("/usr/sbin/dropbear", ["dropbear"]), ("dropbearkey", ["dropbearkey"]), ("/usr/bin/scp", ["scp"]),
        ("./ssh-keygen", ["keygen"]), ("/usr/lib/sftp-server", ["sftp-server"]), ("/usr/bin/dunnart", []), ("", []),
        ("/opt/serve", []), ("/x/scp/dunnart.pyz", []),
    ]:  # fmt: skip
        assert applet(path) == command
