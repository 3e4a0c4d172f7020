"""Logins by certificates: OpenSSH's client at OpenSSH's sshd and at dunnart, with the same authorities and lists."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.peers import Peer, sshd
from tests.interop.support import SECONDS, Keys, Served, environment, eventually, program, serve, settings, write_key

NETWORKS = ("127.0.0.0/8,::1", "192.0.2.0/24")


@dataclass
class World:
    """Both servers, their authorities, and a user's key that only a certificate makes good."""

    folder: Path
    keys: Keys
    ours: Served
    theirs: Peer
    made: int = 0
    refused: int = 0

    @property
    def user(self) -> str:
        return self.ours.user

    def certify(self, *arguments: str, authority: str = "ca", key: str = "ed25519") -> Path:
        """Have a key signed; gives the certificate."""
        self.made += 1
        public = self.folder / f"{self.made}.pub"
        public.write_text((self.folder / "keys" / f"{key}.pub").read_text())
        made = ["-q", "-s", self.folder / authority, *([] if "-I" in arguments else ["-I", "id"]), *arguments, public]
        keygen(*made)
        return self.folder / f"{self.made}-cert.pub"

    def run(
        self, port: int, certificate: Path, *command: str, key: str = "ed25519", options: Sequence[str] = ()
    ) -> tuple[int, str]:
        fixed = settings(
            StrictHostKeyChecking="no", UserKnownHostsFile="/dev/null", LogLevel="ERROR", Port=str(port),
            User=self.user, IdentityFile=self.keys.path(key), CertificateFile=str(certificate),
        )  # fmt: skip
        line = [program("ssh"), *options, *fixed, "127.0.0.1"]
        self.refused = len(self._refusals())
        done = subprocess.run([*line, *command], env=environment(self.folder), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=SECONDS, check=False)  # fmt: skip
        return done.returncode, done.stdout.decode(errors="replace").replace("\r", "")

    def both(self, certificate: Path, *command: str, key: str = "ed25519", options: Sequence[str] = ()) -> str | None:
        """What a command says on dunnart, or None if the login is refused; on sshd it must be the same."""
        theirs = self.run(self.theirs.port, certificate, *command, key=key, options=options)
        ours = self.run(self.ours.port, certificate, *command, key=key, options=options)
        assert ours == theirs
        return None if ours[0] == 255 else ours[1]

    def refused_for(self, reason: str) -> bool:
        """Whether the log comes to say of the last login's certificate that it was refused for this, a pattern."""
        return eventually(lambda: any(re.search(reason, line) for line in self._refusals()[self.refused :]))

    def _refusals(self) -> list[str]:
        return [line for line in self.ours.log.splitlines() if "Failed publickey" in line and "-CERT" in line]


def keygen(*arguments: object, stdin: str = "") -> str:
    line = [program("ssh-keygen"), *map(str, arguments)]
    done = subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_world(folder: Path, lines: Sequence[str], flags: Sequence[str], authorized: str = "") -> World:
    (folder / "keys").mkdir()
    keys = Keys(folder / "keys")
    keys.authorized.write_text(authorized)
    for name in ("sshd", "ours"):
        (folder / name).mkdir()
    theirs = sshd(folder / "sshd", keys, *lines)
    ours = serve(folder / "ours", keys, *flags, "--penalty-exempt", "127.0.0.0/8")
    return World(folder, keys, ours, theirs)


def end(world: World) -> None:
    world.theirs.process.terminate()
    world.theirs.process.wait()
    world.ours.stop()


def make_authorities(folder: Path) -> None:
    for name in ("ca", "other_ca", "revoked_ca"):
        write_key(folder / name, "ed25519")
    write_key(folder / "rsa_ca", "rsa")
    trusted = [(folder / f"{name}.pub").read_text() for name in ("ca", "revoked_ca", "rsa_ca")]
    (folder / "trusted").write_text("# ours\n" + "".join(trusted))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two servers that trust authorities, and have a list of what is revoked."""
    folder = tmp_path_factory.mktemp("trusted")
    make_authorities(folder)
    write_key(folder / "lost", "ed25519")
    (folder / "spec").write_text(
        f"serial: 7\nserial: 100-200\nid: thief\nkey: {(folder / 'lost.pub').read_text()}"
    )  # fmt: skip
    keygen("-q", "-k", "-f", folder / "krl", "-s", folder / "ca.pub", folder / "spec", folder / "revoked_ca.pub")
    made = make_world(
        folder,
        [f"TrustedUserCAKeys {folder / 'trusted'}", f"RevokedKeys {folder / 'krl'}"],
        ["--trusted-user-ca-keys", str(folder / "trusted"), "--revoked-keys", str(folder / "krl")],
    )
    for name in ("lost", "lost.pub"):
        (folder / "keys" / name).write_bytes((folder / name).read_bytes())
        (folder / "keys" / name).chmod(0o600)
    yield made
    end(made)


GOOD = [
    ["-n", "USER"],
    ["-n", "somebody,USER,else"],
    ["-n", "USER", "-V", "-1d:+1d", "-z", "6"],
    ["-n", "USER", "-z", "99", "-I", "an honest man"],
    ["-n", "USER", "-O", f"source-address={NETWORKS[0]}"],
    ["-n", "USER", "-O", "extension:anything@example.com=x"],
    ["-n", "USER", "-O", "clear"],
]
BAD = [
    (["-n", "somebody"], r"its principals \(somebody\) hold none of "),
    (["-n", "USER1"], "its principals"),
    ([], "it is for nobody"),
    (["-n", "USER", "-V", "20200101:20200102"], "it has expired"),
    (["-n", "USER", "-V", "20900101:20900102"], "it is not valid yet"),
    (["-n", "USER", "-O", f"source-address={NETWORKS[1]}"], "127.0.0.1 is not among its source-address=192.0.2.0/24"),
    (["-n", "USER", "-O", "critical:anything@example.com"], "the critical option 'anything@example.com' is not known"),
    (["-n", "USER", "-z", "7"], r"the certificate 'id' \(serial 7\) is revoked"),
    (["-n", "USER", "-z", "150"], "serial 150.* is revoked"),
    (["-n", "USER", "-I", "thief"], "the certificate 'thief' .* is revoked"),
]


@pytest.mark.parametrize("arguments", GOOD)
def test_certificates_that_let_in(world: World, arguments: list[str]) -> None:
    certificate = world.certify(*[each.replace("USER", world.user) for each in arguments])
    assert world.both(certificate, "echo in") == "in\n"


@pytest.mark.parametrize(("arguments", "reason"), BAD)
def test_certificates_that_do_not(world: World, arguments: list[str], reason: str) -> None:
    certificate = world.certify(*[each.replace("USER", world.user) for each in arguments])
    assert world.both(certificate, "echo in") is None
    assert world.refused_for(rf"ED25519-CERT SHA256:\S+ ID .* \(serial \d+\) CA ED25519 SHA256:\S+ .*{reason}")


@pytest.mark.parametrize("kind", ["ecdsa256", "ecdsa384", "ecdsa521", "rsa"])
def test_keys_of_every_kind(world: World, kind: str) -> None:
    certificate = world.certify("-n", world.user, key=kind)
    assert world.both(certificate, "echo in", key=kind) == "in\n"


def test_the_authority_s_signature(world: World) -> None:
    for algorithm in ("rsa-sha2-256", "rsa-sha2-512"):
        good = world.certify("-n", world.user, "-t", algorithm, authority="rsa_ca")
        assert world.both(good, "echo in") == "in\n"
    sha1 = world.certify("-n", world.user, "-t", "ssh-rsa", authority="rsa_ca")
    # OpenSSH's client would not even show it.
    assert world.both(sha1, "echo in", options=["-o", "CASignatureAlgorithms=+ssh-rsa"]) is None
    assert world.refused_for("its authority signed with 'ssh-rsa', which is not accepted")


def test_authorities_that_are_not_trusted(world: World) -> None:
    assert world.both(world.certify("-n", world.user, authority="other_ca"), "echo in") is None
    assert world.refused_for("its authority is not trusted")
    assert world.both(world.certify("-n", world.user, authority="revoked_ca"), "echo in") is None
    assert world.refused_for(r"the authority's key SHA256:\S+ is revoked")


def test_a_revoked_key(world: World) -> None:
    assert world.both(world.certify("-n", world.user, key="lost"), "echo in", key="lost") is None
    assert world.refused_for(r"the key SHA256:\S+ is revoked")


def test_a_forced_command(world: World) -> None:
    certificate = world.certify("-n", world.user, "-O", 'force-command=echo "forced: $SSH_ORIGINAL_COMMAND"')
    assert world.both(certificate, "echo in") == "forced: echo in\n"


def test_what_extensions_permit(world: World) -> None:
    everything = world.certify("-n", world.user)
    no_pty = world.certify("-n", world.user, "-O", "no-pty")
    no_ports = world.certify("-n", world.user, "-O", "no-port-forwarding")
    asks = 'test -t 0 && echo a terminal || echo "no terminal"'
    assert world.both(everything, asks, options=["-tt"]) == "a terminal\n"
    refused = world.both(no_pty, asks, options=["-tt"])
    assert refused is None or "no terminal" in refused
    through = ["-W", f"127.0.0.1:{world.ours.port}"]
    for port in (world.ours.port, world.theirs.port):
        # What comes through is dunnart's first line and KEXINIT.
        assert world.run(port, everything, options=through)[1].startswith("SSH-2.0-dunnart")
        assert world.run(port, no_ports, options=through) == (255, "")


def test_the_log_names_the_certificate(world: World) -> None:
    certificate = world.certify("-n", world.user, "-I", "for the log", "-z", "12")
    assert world.both(certificate, "echo in") == "in\n"
    assert world.ours.logs("for the log")
    line = next(line for line in world.ours.log.splitlines() if "for the log" in line)
    assert "Accepted publickey for" in line
    assert re.search(r"ED25519-CERT SHA256:\S+ ID for the log \(serial 12\) CA ED25519 SHA256:\S+", line)


# Lists of principals, and cert-authority lines.

PRINCIPALS = """\
# who may be this user
admins
from="192.0.2.0/24" remote
command="echo forced by the list" lists
no-pty,from="127.0.0.0/8" local # a comment
frobnicate broken
broken
expiry-time="20200101" old
cert-authority tricky
no-touch-required,restrict restricted
"""


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("listed")
    make_authorities(folder)
    pattern = f"{folder}/principals_%u"
    command = f"{program('printf')} by-%%s:%s:%T:%t: %u"
    made = make_world(
        folder,
        [f"TrustedUserCAKeys {folder / 'trusted'}", f"AuthorizedPrincipalsFile {pattern}",
         f"AuthorizedPrincipalsCommand {command}", "AuthorizedPrincipalsCommandUser root"],
        ["--trusted-user-ca-keys", str(folder / "trusted"), "--authorized-principals-file", pattern,
         "--authorized-principals-command", command, "--authorized-principals-command-user", "root"],
    )  # fmt: skip
    (folder / f"principals_{made.user}").write_text(PRINCIPALS)
    yield made
    end(made)


@pytest.mark.parametrize(
    ("principals", "said", "reason"),
    [
        ("admins", "in\n", ""),
        ("x,admins,y", "in\n", ""),
        ("USER", None, r"none of its principals \(\S+\) is listed for"),
        ("remote", None, r"principals_\S+:3: 127.0.0.1 is not among its from="),
        ("lists", "forced by the list\n", ""),
        ("local", "in\n", ""),
        ("old", None, r"principals_\S+:8: it expired at"),
        ("tricky", None, r"principals_\S+:9: cert-authority is for authorized_keys"),
        ("restricted", "in\n", ""),
        ("by-USER:5:ssh-ed25519:ssh-ed25519-cert-v01@openssh.com:", "in\n", ""),
        ("by-USER:6:ssh-ed25519:ssh-ed25519-cert-v01@openssh.com:", None, "none of its principals"),
    ],
)
def test_lists_of_principals(listed: World, principals: str, said: str | None, reason: str) -> None:
    certificate = listed.certify("-n", principals.replace("USER", listed.user), "-z", "5")
    assert listed.both(certificate, "echo in") == said
    if said is None:
        assert listed.refused_for(reason)


def test_a_principal_s_line_that_is_not_understood_is_not_passed_over(listed: World) -> None:
    # sshd goes on to the next line here, which may grant more than the one before was meant to.
    certificate = listed.certify("-n", "broken")
    assert listed.run(listed.theirs.port, certificate, "echo in") == (0, "in\n")
    assert listed.run(listed.ours.port, certificate, "echo in") == (255, "")
    assert listed.refused_for(r"principals_\S+:6: unknown option 'frobnicate'")


def test_a_list_s_command_and_the_certificate_s(listed: World) -> None:
    same = listed.certify("-n", "lists", "-O", "force-command=echo forced by the list")
    assert listed.both(same, "echo in") == "forced by the list\n"
    other = listed.certify("-n", "lists", "-O", "force-command=echo another")
    assert listed.both(other, "echo in") is None
    assert listed.refused_for("two different commands are forced")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("lines")
    make_authorities(folder)
    ca, other, rsa = ((folder / f"{name}.pub").read_text() for name in ("ca", "other_ca", "rsa_ca"))
    authorized = [
        f'cert-authority,principals="one,two" {ca}',
        f'cert-authority,principals="three",command="echo 3" {ca}',
        f'cert-authority,from="192.0.2.1" {other}',
        rsa,
    ]
    made = make_world(folder, [], [], "".join(authorized))
    yield made
    end(made)


@pytest.mark.parametrize(
    ("authority", "principals", "said"),
    [
        ("ca", "two", "in\n"),
        ("ca", "three", "3\n"),
        ("ca", "USER", None),
        ("other_ca", "USER", None),
        ("rsa_ca", "USER", None),  # which stands there as a user's key
        ("revoked_ca", "USER", None),
    ],
)
def test_lines_of_authorities(lines: World, authority: str, principals: str, said: str | None) -> None:
    certificate = lines.certify("-n", principals.replace("USER", lines.user), authority=authority)
    assert lines.both(certificate, "echo in") == said


# What sshd does with a list of revoked keys that is not there any more: it lets nobody in.


def test_a_list_of_revoked_keys_that_cannot_be_used_lets_nobody_in(start: Serve, keys: Keys, tmp_path: Path) -> None:
    revoked = tmp_path / "revoked"
    revoked.write_text("")
    server = start("--revoked-keys", str(revoked), "--penalty-exempt", "127.0.0.0/8")

    def logs_in() -> bool:
        return OpenSsh().run(server, "echo in").out == b"in\n"

    assert logs_in()
    revoked.write_text((Path(keys.path("ed25519")).with_suffix(".pub")).read_text())
    assert not logs_in()
    assert eventually(lambda: re.search(r"the key SHA256:\S+ is revoked", server.log) is not None)
    revoked.write_text("what is this?\n")
    assert not logs_in()
    assert server.logs("no key is let in while it is not known which are revoked")
    revoked.unlink()
    assert not logs_in()
    revoked.write_text("# nothing\n")
    assert logs_in()


# Certificates of hosts.


def test_host_certificates(start: Serve, tmp_path: Path) -> None:
    host, authority = tmp_path / "host", tmp_path / "ca"
    write_key(host, "ed25519")
    write_key(authority, "ed25519")
    keygen("-q", "-s", authority, "-I", "a host", "-h", "-n", "127.0.0.1,ours.example", f"{host}.pub")
    server = start("--host-key", str(host), "--host-certificate", f"{tmp_path / 'host'}-cert.pub")
    known = tmp_path / "known_hosts"

    def log_in(name: str, line: str) -> tuple[int, str]:
        known.write_text(line)
        options = [f"UserKnownHostsFile={known}", f"HostKeyAlias={name}", "UpdateHostKeys=yes"]
        command, env = OpenSsh().command(server, *(part for each in options for part in ("-o", each)))
        done = subprocess.run(
            [*command, "echo in"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    trusted = f"@cert-authority * {Path(f'{authority}.pub').read_text()}"
    assert log_in("ours.example", trusted) == (0, "in\n")
    assert log_in("other.example", trusted) == (255, "")
    # The plain key is offered beside, and hostkeys-00 tells of it.
    assert log_in("other.example", f"other.example {Path(f'{host}.pub').read_text()}") == (0, "in\n")
