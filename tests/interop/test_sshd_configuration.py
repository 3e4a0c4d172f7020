"""Our `sshd` beside OpenSSH's: what each makes of the same command lines and the same sshd_config."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from dunnart.tools import sshd
from tests.interop.support import SECONDS, program, write_key

NEWER = {
    "pamservicename", "kerberosgetafstoken", "gssapidelegatecredentials", "refuseconnection", "sshdsessionpath",
    "sshdauthpath", "persourcepenaltyexemptlist", "channeltimeout", "persourcepenalties", "requiredrsasize",
    "unusedconnectiontimeout", "logverbose", "securitykeyprovider", "modulifile", "gssapikeyexchange",
    "gssapistorecredentialsonrekey", "gssapiauthentication", "gssapicleanupcredentials", "gssapistrictacceptorcheck",
    "gssapikexalgorithms", "kerberosauthentication", "kerberosorlocalpasswd", "kerberosticketcleanup", "usepam",
    "xauthlocation", "pidfile",
}  # fmt: skip
"""Keywords that not every sshd was built with, or has another default for."""
OWN_LISTS = {
    "ciphers", "macs", "kexalgorithms", "casignaturealgorithms", "hostbasedacceptedalgorithms", "hostkeyalgorithms",
    "pubkeyacceptedalgorithms",
}  # fmt: skip


class Done(NamedTuple):
    status: int
    out: str
    errors: str


class Both:
    """Runs both programs with a configuration in a folder."""

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.key = folder / "host"
        write_key(self.key, "ed25519")
        self.config = folder / "sshd_config"
        self._captured = captured
        self._real = program("sshd")

    def real(self, *flags: str) -> Done:
        """Run OpenSSH's."""
        done = subprocess.run([self._real, *flags], capture_output=True, text=True, timeout=SECONDS, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def ours(self, *flags: str) -> Done:
        """Run ours."""
        self._captured.readouterr()
        status = sshd.run(flags)
        return Done(status, *self._captured.readouterr())

    def write(self, text: str, *, with_key: bool = True) -> tuple[str, str]:
        """Write the configuration; gives the flags that name it."""
        key = f"HostKey {self.key}\n" if with_key else ""
        self.config.write_text(key + text.replace("FOLDER", str(self.folder)))
        return "-f", str(self.config)


@pytest.fixture
def both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Both:
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        pytest.skip("sshd wants /run/sshd")
    return Both(tmp_path, capsys)


def reported(text: str) -> dict[str, list[str]]:
    """Give the values of each keyword that -T prints."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        value = value.replace("without-password", "prohibit-password")
        found.setdefault(keyword.lower(), []).append(value.strip())
    return found


def compare(both: Both, flags: Sequence[str], *, lists: bool = False) -> None:
    real, ours = both.real("-T", *flags), both.ours("-T", *flags)
    assert (real.status, ours.status) == (0, 0), (real.errors, ours.errors)
    left, right = reported(real.out), reported(ours.out)
    common = (left.keys() & right.keys()) - NEWER - (set() if lists else OWN_LISTS)
    assert len(common) > 55
    assert {name: right[name] for name in common} == {name: left[name] for name in common}, flags
    given = {"usepam", "pidfile", "xauthlocation", "modulifile", "unusedconnectiontimeout", "requiredrsasize"}
    for name in given & left.keys() & right.keys():
        if name in both.config.read_text().lower():
            assert right[name] == left[name]


GOOD = r"""
---
# what Debian's file says
Include FOLDER/none/*.conf
KbdInteractiveAuthentication no
UsePAM yes
X11Forwarding yes
PrintMotd no
AcceptEnv LANG LC_*
Subsystem    sftp    /usr/lib/openssh/sftp-server
---
# the first value counts, lists grow; blanks, = and quotes
Port 1
Port 2222
ListenAddress 127.0.0.1
ListenAddress [::1]:77
listenaddress ::1
MaxAuthTries=3
MaxAuthTries 9
  Banner = "/etc/issue file"
AllowUsers a "b"@192.0.2.0/24
AllowUsers d # comment
DenyGroups x*
AcceptEnv A B
AcceptEnv C
SetEnv A=1 "B=two words" A=3
SetEnv C=2
---
# times, sizes, counts
LoginGraceTime 1h30m
ClientAliveInterval 2m
ClientAliveCountMax 0
RekeyLimit 1G 1h
MaxStartups 5
PerSourceMaxStartups 7
PerSourceNetBlockSize 24:64
MaxSessions 4
X11DisplayOffset 20
StreamLocalBindMask 077
---
RekeyLimit default none
MaxStartups 1:2:3
LoginGraceTime 2M30S
IPQoS af21 cs1
---
# words
PermitRootLogin without-password
AllowTcpForwarding all
AllowStreamLocalForwarding Remote
GatewayPorts YES
Compression delayed
AddressFamily inet
PermitTTY no
PermitUserRC no
StrictModes no
DisableForwarding yes
PermitUserEnvironment LANG,LC_*
PasswordAuthentication no
PubkeyAuthentication no
LogLevel verbose
SyslogFacility local3
FingerprintHash sha256
UseDNS yes
TCPKeepAlive no
VersionAddendum Us and # them
---
# files and commands
AuthorizedKeysFile .ssh/a /etc/keys/%u
AuthorizedKeysCommand /bin/keys %u "%t x"
AuthorizedKeysCommandUser nobody
TrustedUserCAKeys /etc/ca
AuthorizedPrincipalsFile /etc/p/%u
ForceCommand echo "a b" 'c' # d
RevokedKeys none
PidFile none
ChrootDirectory none
Subsystem a /bin/a b d
Subsystem sftp internal-sftp -R
---
PermitOpen 192.0.2.1:80 [::1]:*
PermitListen 8080 localhost:*
UsePAM yes
AuthenticationMethods publickey,password publickey,keyboard-interactive
---
PermitOpen none
PermitListen any
AuthenticationMethods any
PermitTunnel no
AuthorizedKeysFile none
---
# older names, and what is left of others
ChallengeResponseAuthentication no
KeepAlive yes
Protocol 2
UsePrivilegeSeparation sandbox
UseLogin no
"""
"""Files that mean something, with --- between them."""
MATCHED = """\
Banner /outside
AllowUsers x
AcceptEnv A
PasswordAuthentication yes
Match User bob,"a*,!anna"
    Banner /bob
    AllowUsers bob
    AcceptEnv B C
Match Address 192.0.2.0/24,!192.0.2.7 User *
    Banner /net
    AcceptEnv D
    PasswordAuthentication no
    PermitOpen none
Match Group root
    X11Forwarding yes
    ForceCommand /bin/true
Match LocalAddress 127.0.0.1 LocalPort 22
    AllowTcpForwarding local
    ForceCommand none
Match all
    PermitTTY no
    PermitRootLogin yes
    Banner /all
"""
LOGINS = [
    "user=bob,addr=198.51.100.1", "user=anna,addr=192.0.2.7", "user=arne,addr=192.0.2.8", "user=root,addr=192.0.2.8",
    "user=root,addr=192.0.2.8,laddr=127.0.0.1,lport=22", "user=bob,laddr=127.0.0.1,lport=22,host=h,addr=::1",
]  # fmt: skip
INCLUDED = {
    "main": "Match user a\n Banner /aa\nMatch user b\n Banner /bb\n Include FOLDER/i.* # c\nMatch user c\n Include "
    "FOLDER/i.*\n Banner /cc\nMatch user m\n Include FOLDER/i.*\nMatch user e\n Banner /ee\n Include FOLDER/i.*\n",
    "i.0": "Match user xxxxxx\n",
    "i.1": "Match user a\n Banner /aaa\nMatch user b\n Banner /bbb\nMatch user c\n Banner /ccc\n",
    "i.2": "Match user a\n Banner /aaaa\nMatch user c # comment\n Banner /cccc\nMatch all\n Banner /xxxx\n",
}


def test_effective_configurations_are_the_same(both: Both) -> None:
    for text in GOOD.split("---\n"):
        compare(both, both.write(text))
    lists = "Ciphers aes256-ctr,aes128-ctr\nMACs hmac-sha2-256\nKexAlgorithms curve25519-sha256\n"
    more = "HostKeyAlgorithms ssh-ed25519\nPubkeyAcceptedAlgorithms ssh-ed25519,rsa-sha2-512\n"
    given = both.write(lists + more + "CASignatureAlgorithms ssh-ed25519\nHostbasedAcceptedAlgorithms ssh-ed25519\n")
    compare(both, given, lists=True)


def test_match_blocks_and_includes_mean_the_same(both: Both) -> None:
    file = both.write(MATCHED)
    for login in LOGINS:
        compare(both, (*file, "-C", login + ("" if "lport" in login else ",lport=1")))
    for name, text in INCLUDED.items():
        (both.folder / name).write_text(text.replace("FOLDER", str(both.folder)))
    file = both.write("Include FOLDER/main\n")
    for user in "abcmexyz":
        compare(both, (*file, "-C", f"user={user}"))
    (both.folder / "main").write_text(f"Include {both.folder}/i.2\nMatch user a\n Banner /last\n")
    compare(both, (*file, "-C", "user=a"))
    compare(both, (*file, "-C", "user=b"))


FLAGS = [
    ("-p", "2222"), ("-p", "ssh", "-p", "77"), ("-4",), ("-6", "-p", "5"), ("-o", "Port=1", "-oMaxAuthTries 2"),
    ("-g", "1m"), ("-q",), ("-d",), ("-ddd",), ("-D", "-e", "-i"), ("-u", "0"), ("-o", "Subsystem x /bin/x"),
    ("-o", "Banner=/first", "-o", "Banner=/second", "-C", "user=a,addr=192.0.2.1"), ("-b", "768", "-k", "5", "-r"),
]  # fmt: skip


def test_flags_come_before_the_file(both: Both) -> None:
    file = both.write("Port 9\nLoginGraceTime 7\nMaxAuthTries 5\nBanner /file\nLogLevel ERROR")
    for flags in FLAGS:
        compare(both, (*file, *flags))
    both.write("", with_key=False)
    compare(both, (*file, "-h", str(both.key)))
    compare(both, ("-f", "none", "-h", str(both.key)))


BAD = r"""
Foo bar
Port
Port 0
Port abc
Port 1 2
PermitRootLogin maybe
Banner 'x
LoginGraceTime 1x
MaxStartups 5:0:10
MaxStartups 10:30:5
MaxAuthTries many
AcceptEnv A=B
SetEnv A
AllowUsers a@192.0.2.1/8
Ciphers no-such
MACs +no-such
KexAlgorithms ,
HostKeyAlgorithms no-such
Subsystem sftp
AuthenticationMethods nonsense
PermitOpen host
AuthenticationMethods any publickey
StreamLocalBindMask 999
PermitTunnel perhaps
Include
AuthorizedKeysCommand relative
AuthorizedKeysCommand /bin/x
LogLevel loud
SyslogFacility moon
FingerprintHash crc
RekeyLimit 5
RekeyLimit lots
AddressFamily ipx
ListenAddress [::1
Match
Match user
Match moon full
Match all user a
Match address 1.2.3.4/33
Include FOLDER/broken
AuthenticationMethods hostbased
IPQoS quick
PerSourceNetBlockSize 40
PubkeyAuthOptions x
"""
"""Lines that are wrong, each by itself."""
WORSE = [
    "Match user a\nPort 22\n",
    "Match user a\nUsePAM no\n",
    "Match user a\nBanner\n",
    "Foo\nBar baz\nPort 22\nQux 1\n",
    "Match user a\nInclude FOLDER/broken\n",
]
BAD_FLAGS = [
    ("-t", "-x"), ("-t", "-p", "0"), ("-t", "-p", "x"), ("-t", "-o", "Foo bar"), ("-t", "-o", "Port"),
    ("-t", "-C", "user=a"), ("-t", "-o", "Match user a"), ("-t", "-o", "Include /x"), ("-T", "-C", "user=a,moon=1"),
    ("-t", "-g", "x"), ("-t", "extra"), ("-t", "-o", "Port x"), ("-t", "-u", "9999", "-Q"), ("-T", "-C", "lport=x"),
    ("-t", "-f", "/no/such"), ("-t", "-f"), ("-t", "-4", "-6", "--"),
]  # fmt: skip


def test_what_is_wrong_ends_both_alike(both: Both) -> None:
    (both.folder / "broken").write_text("Foo\n")
    for text in [*BAD.strip().splitlines(), *WORSE]:
        file = both.write(f"{text}\n")
        real, ours = both.real("-t", *file), both.ours("-t", *file)
        assert ours.status == real.status == 255, (text, real, ours)
        line = re.search(r"line \d+", real.errors)
        assert line is None or line[0] in ours.errors, (text, real.errors, ours.errors)
    file = both.write("")
    for flags in BAD_FLAGS:
        real, ours = both.real(*file, *flags), both.ours(*file, *flags)
        assert ours.status == real.status, (flags, real, ours)
        assert bool(ours.errors) == bool(real.errors), (flags, real.errors, ours.errors)


def test_checking_alone(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    file = both.write("UsePAM yes\n")
    assert both.ours("-t", *file) == both.real("-t", *file) == Done(0, "", "")
    assert both.ours("-V")[:2] == (0, "")
    assert both.ours("-T", *file, "-o", "Port=99").out == both.ours("-G", *file, "-o", "Port=99").out
    without = both.write("HostKey FOLDER/missing\n", with_key=False)
    for flags in (("-t",), ("-T",)):
        real, ours = both.real(*flags, *without), both.ours(*flags, *without)
        assert ours.status == real.status == 1
        assert all("no hostkeys available" in each.errors for each in (real, ours))
    assert both.ours("-G", *without).status == 0
    missing = both.write("Banner FOLDER/none\nHostCertificate FOLDER/none\n")
    assert both.ours("-t", *missing).status == both.real("-t", *missing).status == 0
    quiet = both.write("Foo\n")
    assert both.ours("-t", "-q", *quiet) == both.real("-t", "-q", *quiet) == Done(255, "", "")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for whoever is not root
    assert ": Permission denied\nsshd: no hostkeys" in both.ours("-t", *both.write("")).errors


def test_what_is_reported_can_be_read_again(both: Both) -> None:
    file = both.write(MATCHED)
    again = both.folder / "again"
    again.write_text(both.real("-T", *file, "-C", LOGINS[2] + ",lport=1").out)
    compare(both, ("-f", str(again)))
    reports = []
    for flags in ((*file, "-C", LOGINS[2]), ("-f", str(again))):
        reports.append(both.ours("-T", *flags).out)
        again.write_text(reports[-1])
    assert reports[0] == reports[1]
