"""What `sshd -T` prints: OpenSSH 10.5's keywords in its order, and its way to write values."""

from __future__ import annotations

from pathlib import Path

import pytest

from dunnart.tools import sshd

# Without PAM, Kerberos and GSS-API, as they are built in or not; HostbasedAcceptedAlgorithms is nothing here.
NAMES = """
port addressfamily listenaddress logingracetime x11displayoffset maxauthtries maxsessions clientaliveinterval
clientalivecountmax requiredrsasize streamlocalbindmask unusedconnectiontimeout permitrootlogin ignorerhosts
ignoreuserknownhosts hostbasedauthentication hostbasedusesnamefrompacketonly pubkeyauthentication passwordauthentication
kbdinteractiveauthentication printmotd printlastlog x11forwarding x11uselocalhost permittty permituserrc strictmodes
tcpkeepalive permitemptypasswords compression gatewayports usedns allowtcpforwarding allowagentforwarding
disableforwarding allowstreamlocalforwarding streamlocalbindunlink fingerprinthash exposeauthinfo refuseconnection
pidfile modulifile xauthlocation ciphers macs banner forcecommand chrootdirectory trustedusercakeys securitykeyprovider
authorizedprincipalsfile versionaddendum authorizedkeyscommand authorizedkeyscommanduser authorizedprincipalscommand
authorizedprincipalscommanduser hostkeyagent kexalgorithms casignaturealgorithms hostkeyalgorithms
pubkeyacceptedalgorithms sshdsessionpath sshdauthpath persourcepenaltyexemptlist loglevel syslogfacility
authorizedkeysfile revokedkeys hostkey hostcertificate allowusers denyusers allowgroups denygroups acceptenv setenv
authenticationmethods logverbose channeltimeout subsystem maxstartups persourcemaxstartups persourcenetblocksize
permittunnel ipqos rekeylimit permitopen permitlisten permituserenvironment pubkeyauthoptions persourcepenalties
"""
ORDER = NAMES.split()
GIVEN = """
ListenAddress 127.0.0.1
UnusedConnectionTimeout 5m
RevokedKeys /a /b
HostKey /k
HostCertificate /c
AllowUsers a b
DenyUsers x
AllowGroups g
DenyGroups h
AcceptEnv X
SetEnv A=b "C=d e"
LogVerbose kex.c:*
ChannelTimeout session=5m agent-connection=10s
AuthenticationMethods publickey,password keyboard-interactive
Subsystem x /bin/x y z
PermitListen 1 *:2
PubkeyAuthOptions touch-required verify-required
PerSourcePenalties crash:5m overflow:deny-all
"""


def reported(folder: Path, text: str, captured: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    path = folder / "sshd_config"
    path.write_text(text)
    assert sshd.run(["-G", "-f", str(path)]) == 0
    lines = [line.partition(" ")[::2] for line in captured.readouterr().out.splitlines()]
    return [pair for pair in lines if not pair[0].startswith(("gssapi", "kerberos", "usepam", "pamservice"))]


def test_everything_is_reported_in_sshds_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(tmp_path, GIVEN, capsys)
    assert list(dict.fromkeys(name for name, _ in found)) == ORDER
    values = {name: [value for key, value in found if key == name] for name in ORDER}
    for name, expected in {
        "listenaddress": ["127.0.0.1:22"], "unusedconnectiontimeout": ["300"], "revokedkeys": ["/a /b"],
        "allowusers": ["a", "b"], "setenv": ["A=b", "C=d e"], "channeltimeout": ["session=5m agent-connection=10s"],
        "authenticationmethods": ["publickey,password keyboard-interactive"], "subsystem": ["x /bin/x y z"],
        "permitlisten": ["*:1 *:2"], "pubkeyauthoptions": ["touch-required verify-required"],
    }.items():  # fmt: skip
        assert values[name] == expected
    (penalties,) = values["persourcepenalties"]
    assert penalties.startswith("crash:300.000000 ")
    assert penalties.endswith(" overflow:deny-all overflow6:deny-all")


def test_lists_of_nothing_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = dict(reported(tmp_path, "HostKey /k\n", capsys))
    lists = {"revokedkeys", "hostcertificate", "allowusers", "denyusers", "allowgroups", "denygroups", "acceptenv",
             "setenv", "logverbose", "subsystem"}  # fmt: skip
    assert list(found) == [name for name in ORDER if name not in lists]
    assert found["authenticationmethods"] == "any"
    assert found["channeltimeout"] == found["unusedconnectiontimeout"] == found["pubkeyauthoptions"] == "none"
    assert found["persourcepenalties"].endswith(" overflow:permissive overflow6:permissive")
