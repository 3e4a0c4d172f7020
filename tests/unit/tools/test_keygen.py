"""`dunnart keygen` beside the real ssh-keygen: each reads what the other has written, and both say the same."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dunnart.keys import Certificate, PrivateKey, RevokedKeys
from dunnart.tools.keygen import program as keygen_program
from dunnart.tools.keygen import times
from dunnart.tools.keygen.flags import KeygenError
from dunnart.tools.main import main

CA = PrivateKey.generate("ed25519")
KINDS = ["ed25519", "rsa", "ecdsa", "ecdsa:384", "ecdsa:521"]


class Both:
    """Both programs, in one folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def theirs(self, *arguments: object, status: int = 0, stdin: str = "") -> str:
        program = shutil.which("ssh-keygen")
        if program is None:
            if os.environ.get("CI"):
                pytest.fail("ssh-keygen is missing")
            pytest.skip("ssh-keygen is missing")
        done = subprocess.run([program, *map(str, arguments)], cwd=self.folder, input=stdin, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == status, done.stderr
        return done.stdout

    def ours(self, *arguments: object, status: int = 0) -> str:
        out, err = self.say(*arguments, status=status)
        assert status or "Traceback" not in err
        return out

    def say(self, *arguments: object, status: int = 0) -> tuple[str, str]:
        self._capsys.readouterr()
        assert main(["keygen", *map(str, arguments)]) == status
        found = self._capsys.readouterr()
        return found.out, found.err

    def make(self, name: str, kind: str = "ed25519", comment: str = "a comment", passphrase: str = "") -> None:
        kind, _, bits = kind.partition(":")
        size = ("-b", bits) if bits else ("-b", "2048") if kind == "rsa" else ()
        self.theirs("-q", "-t", kind, *size, "-a", "2", "-N", passphrase, "-C", comment, "-f", name)

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def both(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Both:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca").write_bytes(CA.openssh("the authority"))
    (tmp_path / "ca").chmod(0o600)
    (tmp_path / "ca.pub").write_text(f"{CA.public.line('the authority')}\n")
    return Both(tmp_path, capsys)


# Key pairs.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passphrase", ["", "a secret"])
def test_keys_that_ssh_keygen_reads(both: Both, kind: str, passphrase: str) -> None:
    name, _, bits = kind.partition(":")
    size = ("-b", bits) if bits else ()
    said = both.ours("-t", name, *size, "-a", 2, "-N", passphrase, "-C", "me @ home", "-f", "key")
    assert both.theirs("-y", "-P", passphrase, "-f", "key") == both.text("key.pub")
    assert both.text("key.pub").endswith(" me @ home\n")
    assert both.theirs("-l", "-f", "key.pub") == both.ours("-l", "-f", "key.pub")
    assert both.theirs("-l", "-f", "key.pub").split()[1] in said
    assert (both.folder / "key").stat().st_mode & 0o777 == 0o600
    assert (both.folder / "key.pub").stat().st_mode & 0o133 == 0
    if passphrase:
        both.theirs("-y", "-P", "wrong", "-f", "key", status=255)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_keys(both: Both, kind: str) -> None:
    both.make("key", kind)
    for arguments in ("-l", "-B", "-l -E md5", "-l -E sha1", "-l -E sha512", "-y", "-e -m pkcs8"):
        if kind != "ed25519" or "pkcs8" not in arguments:
            assert both.ours(*arguments.split(), "-f", "key") == both.theirs(*arguments.split(), "-f", "key")
    assert both.ours("-l", "-f", "key.pub") == both.theirs("-l", "-f", "key.pub")


def test_fingerprints_in_lists_of_keys(both: Both) -> None:
    both.make("one")
    both.make("two", "ecdsa", "")
    lines = f'# comment\n\ncommand="a b",no-pty {both.text("one.pub")}host.example {both.text("two.pub")}'
    (both.folder / "list").write_text(f"{lines}@cert-authority *.x {both.text('one.pub')}no key\n")
    theirs = both.theirs("-l", "-f", "list").splitlines()
    ours = both.ours("-l", "-f", "list").splitlines()
    assert len(ours) == 3
    assert [line.split()[:2] for line in ours[:2]] == [line.split()[:2] for line in theirs[:2]]


def test_passphrase_and_comment(both: Both) -> None:
    for kind in ("ed25519", "rsa", "ecdsa"):
        both.make(kind, kind, "first")
        both.ours("-p", "-P", "", "-N", "secret", "-a", 2, "-f", kind)
        assert both.theirs("-y", "-P", "secret", "-f", kind) == both.text(f"{kind}.pub")
        assert "Old comment: first" in both.ours("-c", "-C", "second", "-P", "secret", "-f", kind)
        assert both.theirs("-y", "-P", "secret", "-f", kind).endswith(" second\n")
        assert both.text(f"{kind}.pub").endswith(" second\n")
        both.theirs("-q", "-c", "-C", "third", "-P", "secret", "-a", "2", "-f", kind)
        assert both.ours("-y", "-P", "secret", "-f", kind) == both.text(f"{kind}.pub")
        assert both.say("-y", "-P", "wrong", "-f", kind, status=255)[1].startswith("dunnart keygen: ")
        both.ours("-p", "-P", "secret", "-N", "", "-f", kind)
        assert both.theirs("-y", "-f", kind).endswith(" third\n")


@pytest.mark.parametrize("form", ["PEM", "PKCS8"])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_private_keys_in_pem(both: Both, kind: str, form: str) -> None:
    both.ours("-q", "-t", kind, "-m", form, "-N", "secret", "-f", "key")
    assert "OPENSSH" not in both.text("key")
    assert both.theirs("-y", "-P", "secret", "-f", "key").split()[:2] == both.text("key.pub").split()[:2]
    both.make("other", kind)
    both.ours("-p", "-N", "", "-m", form, "-f", "other")
    assert both.theirs("-y", "-f", "other").split()[:2] == both.text("other.pub").split()[:2]
    assert "PEM" in both.say("-c", "-C", "x", "-f", "other", status=255)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_public_keys_in_other_formats(both: Both, kind: str) -> None:
    both.make("key", kind)
    plain = " ".join(both.text("key.pub").split()[:2])
    (both.folder / "ours").write_text(both.ours("-e", "-f", "key.pub"))
    (both.folder / "theirs").write_text(both.theirs("-e", "-f", "key.pub"))
    assert both.theirs("-i", "-f", "ours").strip() == plain
    assert both.ours("-i", "-f", "theirs").strip() == plain
    if kind == "ed25519":
        assert both.say("-e", "-m", "PEM", "-f", "key", status=255)[1] != ""
        return
    (both.folder / "pkcs8").write_text(both.ours("-e", "-m", "PKCS8", "-f", "key.pub"))
    assert both.ours("-i", "-m", "PKCS8", "-f", "pkcs8") == both.theirs("-i", "-m", "PKCS8", "-f", "pkcs8")
    if kind == "rsa":
        assert both.ours("-e", "-m", "PEM", "-f", "key") == both.theirs("-e", "-m", "PEM", "-f", "key")
        (both.folder / "pem").write_text(both.ours("-e", "-m", "PEM", "-f", "key"))
        assert both.ours("-i", "-m", "PEM", "-f", "pem").strip() == plain


def test_a_file_that_is_there_is_asked_about(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    both.make("key")
    before = both.text("key")
    for answer, status in (("n\n", 1), ("", 1), ("y\n", 0)):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert both.text("key") == before
        assert "key already exists.\nOverwrite (y/n)? " in both.ours("-f", "key", "-N", "", status=status)
    assert both.text("key") != before


# Certificates.

SIGNED = [
    ["-n", "me"],
    ["-n", "me,you", "-z", "18446744073709551615", "-V", "20200101:20380101"],
    ["-n", "me", "-V", "20200101120000Z:20380101"],
    ["-n", "me", "-V", "always:20380101"],
    ["-n", "me", "-V", "0x5e0be100:forever"],
    ["-n", "me", "-O", "force-command=/bin/true x=y", "-O", "source-address=192.0.2.0/24,::1", "-O", "verify-required"],
    ["-n", "me", "-O", "clear"],
    ["-n", "me", "-O", "clear", "-O", "permit-pty", "-O", "no-touch-required"],
    ["-n", "me", "-O", "no-pty", "-O", "no-x11-forwarding", "-O", "no-agent-forwarding", "-O", "no-port-forwarding",
     "-O", "no-user-rc"],
    ["-n", "me", "-O", "extension:x@example.com=a value", "-O", "critical:y@example.com", "-O", "extension:z@e.com"],
    ["-h", "-n", "host.example,192.0.2.1"],
    ["-h", "-n", "h", "-O", "critical:y@example.com=1"],
    [],
]  # fmt: skip


@pytest.mark.parametrize("arguments", SIGNED)
def test_certificates(both: Both, arguments: list[str]) -> None:
    both.make("key")
    named = ["-s", "ca", "-I", "a name", *arguments, "key.pub"]
    both.theirs("-q", *named)
    shown = both.theirs("-L", "-f", "key-cert.pub")
    assert both.ours("-L", "-f", "key-cert.pub") == shown
    (both.folder / "key-cert.pub").unlink()
    said = both.say(*named)[1]
    assert both.theirs("-L", "-f", "key-cert.pub") == shown
    assert said.splitlines()[-1].startswith(
        f'Signed {"host" if "-h" in arguments else "user"} key key-cert.pub: id "a '
    )
    certificate = Certificate.parse_line(both.text("key-cert.pub"))
    certificate.verify_signature()
    assert both.text("key-cert.pub").endswith(" a comment\n")


@pytest.mark.parametrize("authority", ["rsa", "ecdsa:521"])
@pytest.mark.parametrize("kind", KINDS)
def test_certificates_of_all_kinds(both: Both, kind: str, authority: str) -> None:
    both.make("key", kind)
    both.make("other_ca", authority)
    both.ours("-q", "-s", "other_ca", "-I", "x", "-n", "me", "key.pub")
    assert both.theirs("-L", "-f", "key-cert.pub") == both.ours("-L", "-f", "key-cert.pub")
    assert both.theirs("-l", "-f", "key-cert.pub") == both.ours("-l", "-f", "key-cert.pub")


def test_serial_numbers_that_count_on(both: Both) -> None:
    for name in ("one", "two"):
        both.make(name)
    both.ours("-q", "-s", "ca", "-I", "x", "-n", "me", "-z", "+5", "one.pub", "two.pub")
    serials = [Certificate.parse_line(both.text(f"{name}-cert.pub")).serial for name in ("one", "two")]
    assert serials == [5, 6]


def test_from_now_on(both: Both) -> None:
    both.make("key")
    for interval in ("+52w", "-5m:+1d12h", "+1h:+2h", "-1s:forever"):
        both.theirs("-q", "-s", "ca", "-I", "x", "-n", "me", "-V", interval, "key.pub")
        theirs = Certificate.parse_line(both.text("key-cert.pub"))
        both.ours("-q", "-s", "ca", "-I", "x", "-n", "me", "-V", interval, "key.pub")
        ours = Certificate.parse_line(both.text("key-cert.pub"))
        assert abs(ours.valid_after - theirs.valid_after) <= 60
        assert abs(ours.valid_before - theirs.valid_before) <= 60


@pytest.mark.parametrize(
    "text", ["", "52w", "+", "+5y", "20200101", "20200101:", ":20200101", "20200101:20190101", "2020:2021",
             "20201301:20210101", "0x:0x5", "+1_0d", "forever:always", "-99999999w:+1d", " 0200101:20210101"],
)  # fmt: skip
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(KeygenError):
        times.interval(text)


# Lists of revoked keys.

SPEC = """\
# comment
serial: 5
serial: 0x10-0x20
SERIAL: 017
id: a thief # in March
"""


def test_lists_of_revoked_keys(both: Both) -> None:
    for name in ("one", "two", "three", "four"):
        both.make(name)
    both.ours("-q", "-s", "ca", "-I", "one's", "-n", "me", "-z", "40", "one.pub")
    both.ours("-q", "-s", "ca", "-I", "two's", "-n", "me", "two.pub")  # without a number
    print_of = both.ours("-l", "-f", "four.pub").split()[1]
    spec = f"{SPEC}key: {both.text('three.pub')}sha1: {both.text('four.pub')}"
    spec += f"hash: {print_of}\nsha256: {both.text('four.pub')}"
    (both.folder / "spec").write_text(spec)
    made = ["-s", "ca.pub", "-z", "3", "-C", "a list", "spec", "one-cert.pub", "two-cert.pub"]
    both.theirs("-q", "-k", "-f", "theirs", *made)
    assert both.ours("-k", "-f", "ours", *made).splitlines() == [
        "Revoking from spec", "Revoking from one-cert.pub", "Revoking from two-cert.pub",
    ]  # fmt: skip
    listed = [without_times(both.theirs("-Q", "-l", "-f", name)) for name in ("ours", "theirs")]
    assert listed[0] == listed[1]
    shown = both.ours("-Q", "-l", "-f", "theirs")
    assert {"serial: 5", "serial: 15-32", "serial: 40", "id: a thief", "id: two's"} <= set(shown.splitlines())
    files = ["one.pub", "one-cert.pub", "two-cert.pub", "three.pub", "four.pub", "ca.pub"]
    for name in ("ours", "theirs"):
        said = both.ours("-Q", "-f", name, *files, status=1)
        assert said == both.theirs("-Q", "-f", name, *files, status=1)
        assert [line.endswith("REVOKED") for line in said.splitlines()] == [False, True, True, True, True, False]
    assert both.ours("-Q", "-f", "ours", "one.pub", "ca.pub") == both.theirs("-Q", "-f", "ours", "one.pub", "ca.pub")
    both.ours("-q", "-k", "-u", "-f", "theirs", "one.pub")
    assert both.theirs("-Q", "-f", "theirs", "one.pub", "three.pub", status=1).count("REVOKED") == 2
    assert RevokedKeys.parse((both.folder / "theirs").read_bytes()).number == 3


def without_times(text: str) -> str:
    return re.sub("# Generated at .*", "", text)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("serial: 5", "whose certificates"),
        ("id: x", "whose certificates"),
        ("hash: MD5:aa", "no fingerprint"),
        ("hash: SHA256:AAAA", "no fingerprint"),
        ("ssh-ed25519 AAAA", "spec:1"),
        ("nonsense", "spec:1"),
    ],
)
def test_specifications_that_are_wrong(both: Both, line: str, reason: str) -> None:
    (both.folder / "spec").write_text(f"{line}\n")
    assert reason in both.say("-k", "-f", "list", "spec", status=255)[1]
    assert not (both.folder / "list").exists()
    both.theirs("-k", "-f", "list", "spec", status=255)


@pytest.mark.parametrize("serial", ["0", "x", "5-4", "1-", "18446744073709551616", "1_0", "08"])
def test_serial_numbers_that_are_none(both: Both, serial: str) -> None:
    (both.folder / "spec").write_text(f"serial: {serial}\n")
    both.theirs("-k", "-f", "list", "-s", "ca.pub", "spec", status=255)
    assert "spec:1" in both.say("-k", "-f", "list", "-s", "ca.pub", "spec", status=255)[1]


# Known hosts.


def hosts(both: Both) -> str:
    both.make("key")
    line = both.text("key.pub")
    return (
        f"a.example,[b.example]:2222 {line}# comment\n\n*.c.example {line}@cert-authority a.example {line}"
        f"@revoked * {line}a.example,d.example {line}"
    )


@pytest.mark.parametrize("host", ["a.example", "A.example", "[b.example]:2222", "x.c.example", "d.example", "other"])
def test_hosts_are_found(both: Both, host: str) -> None:
    (both.folder / "known").write_text(hosts(both))
    for more in ((), ("-l",), ("-q",)):
        status = 0  # the line that revokes is for all
        assert both.ours("-F", host, *more, "-f", "known", status=status) == both.theirs(
            "-F", host, *more, "-f", "known", status=status
        )
    (both.folder / "known").write_text(f"z {both.text('key.pub')}")
    assert both.ours("-F", host, "-f", "known", status=1) == both.theirs("-F", host, "-f", "known", status=1) == ""


@pytest.mark.parametrize("host", ["a.example", "[b.example]:2222", "x.c.example", "other"])
@pytest.mark.parametrize("hashed", [False, True])
def test_hosts_are_removed(both: Both, host: str, *, hashed: bool) -> None:
    (both.folder / "known").write_text(hosts(both))
    if hashed:
        both.ours("-H", "-f", "known")
    shutil.copy("known", "same")
    assert both.ours("-R", host, "-f", "known") == both.theirs("-R", host, "-f", "same").replace("same", "known")
    assert both.text("known") == both.text("same")


def test_lines_end_where_a_client_has_them_end(both: Both) -> None:
    key = CA.public.line()
    kept = f"# old:\x0cz {key}\n# old:\u2028z {key}\n@revoked\tz\t{key}\n"
    Path("known").write_text(f"{kept}other {key}\n", encoding="utf-8")
    assert both.ours("-F", "z", "-q", "-f", "known") == f"@revoked\tz\t{key}\n"
    both.ours("-R", "other", "-f", "known")
    assert Path("known").read_text(encoding="utf-8") == kept
    Path("known").write_text("")
    both.ours("-H", "-f", "known")
    assert both.text("known") == ""


def test_names_are_hashed(both: Both) -> None:
    (both.folder / "known").write_text(hosts(both))
    out, err = both.say("-H", "-f", "known")
    assert "Original contents retained as known.old" in out
    assert "known.old still shows names" in err
    text = both.text("known")
    assert "b.example" not in text
    assert text.count("|1|") == 4
    assert "*.c.example" in text  # which no hash can stand for
    for host in ("a.example", "[b.example]:2222", "d.example"):
        assert both.theirs("-F", host, "-f", "known") == both.ours("-F", host, "-f", "known")
        assert "|1|" in both.ours("-F", host, "-f", "known")


def test_a_file_that_is_not_understood_stays(both: Both) -> None:
    (both.folder / "known").write_text("|1|damaged ssh-ed25519 AAAA\nhost\n")
    for arguments in (("-R", "host"), ("-H",)):
        err = both.say(*arguments, "-f", "known", status=1)[1]
        assert "known:1: invalid line" in err
        assert both.text("known") == "|1|damaged ssh-ed25519 AAAA\nhost\n"
        both.theirs(*arguments, "-f", "known", status=1)


# Wrong command lines.


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["-9"], 1, "-9 not recognized"),
        (["-f"], 1, "-f requires argument"),
        (["-l", "-f", "ca.pub", "more"], 1, "what is 'more' for"),
        (["-s", "ca", "-I", "x"], 1, "which keys"),
        (["-p", "-c"], 1, "do not go together"),
        (["-l", "-R", "host"], 1, "do not go together"),
        (["-t", "nothing", "-f", "k", "-N", ""], 255, "unknown key type 'nothing'"),
        (["-t", "rsa", "-b", "512", "-f", "k", "-N", ""], 255, "512 bits"),
        (["-t", "ecdsa", "-b", "300", "-f", "k", "-N", ""], 255, "300 bits"),
        (["-s", "ca", "ca.pub"], 255, "-I"),
        (["-s", "ca.pub", "-I", "x", "ca.pub"], 255, "ca.pub"),
        (["-s", "ca", "-I", "x", "-O", "frobnicate", "ca.pub"], 255, "no certificate option 'frobnicate'"),
        (["-s", "ca", "-I", "x", "-O", "force-command", "ca.pub"], 255, "no certificate option"),
        (["-s", "ca", "-I", "x", "-O", "source-address=1.2.3.4/33", "ca.pub"], 255, "source-address"),
        (["-s", "ca", "-I", "x", "-n", "a,,b", "ca.pub"], 255, "a principal is empty"),
        (["-s", "ca", "-I", "x", "-z", "-5", "ca.pub"], 255, "-z -5"),
        (["-s", "ca", "-I", "x", "-V", "never", "ca.pub"], 255, "-V 'never'"),
        (["-l", "-f", "missing"], 255, "missing: No such file"),
        (["-l", "-E", "crc32", "-f", "ca.pub"], 255, "no hash 'crc32'"),
        (["-e", "-m", "xml", "-f", "ca.pub"], 255, "no key format 'xml'"),
        (["-Q", "ca.pub"], 255, "which list"),
        (["-Q", "-f", "ca", "ca.pub"], 255, "ca: line 1"),
        (["-k"], 255, "which list"),
    ],
)
def test_wrong_command_lines(both: Both, arguments: list[str], status: int, reason: str) -> None:
    assert reason in both.say(*arguments, status=status)[1]
    both.theirs(*arguments, status=status)


def test_what_ssh_keygen_has_and_we_have_not(both: Both) -> None:
    for flag in ("-A", "-K", "-U", "-v"):
        assert "is not offered" in both.say(flag, status=1)[1]
    assert "its authenticator" in both.say("-t", "ed25519-sk", "-f", "k", "-N", "", status=255)[1]
    assert keygen_program.run(["--help"]) == 0


def test_files_that_are_open_to_others(both: Both) -> None:
    (both.folder / "ca").chmod(0o644)
    assert "can be read by others" in both.say("-y", "-f", "ca", status=255)[1]


def test_a_passphrase_that_nobody_is_there_to_give(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    both.make("key", passphrase="secret")
    monkeypatch.setattr("dunnart.tools.keygen.files.ask", lambda *_, **__: None)
    assert "nobody is there to ask" in both.say("-y", "-f", "key", status=255)[1]
