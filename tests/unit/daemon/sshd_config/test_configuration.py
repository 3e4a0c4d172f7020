"""What sshd's keywords become; that sshd reads them so: tests/interop/test_sshd_configuration.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from dunnart.daemon.config import ServeConfig
from dunnart.daemon.loading import effective, load
from dunnart.daemon.matching import MAY_MATCH, Login
from dunnart.daemon.sshd_config import configuration as translated
from dunnart.daemon.sshd_config.configuration import Made, configuration
from dunnart.daemon.sshd_config.importing import imported, plain
from dunnart.daemon.sshd_config.keywords import ALIASES, DEPRECATED, KEYWORDS
from dunnart.daemon.sshd_config.reading import Directives, Unusable
from dunnart.daemon.sshd_config.translate import Machine
from dunnart.daemon.writing import to_toml
from dunnart.protocol.limits import GIB, MIB, OF_USERS


def made(folder: Path, text: str, *, root: bool = True, kerberos: bool = True) -> Made:
    (folder / "sshd_config").write_text(text)
    directives = Directives()
    directives.add_file(str(folder / "sshd_config"))
    return configuration(directives.found, Machine(["/etc/ssh/key"], root, "" if kerberos else "it needs x"))


def toml(config: ServeConfig) -> set[str]:
    """Give the lines that differ from those of an empty file."""
    empty = configuration([], Machine(["/etc/ssh/key"], root=True)).config
    return set(to_toml(config).splitlines()) - set(to_toml(empty).splitlines())


def test_an_empty_file_means_what_sshd_does(tmp_path: Path) -> None:
    config = made(tmp_path, "").config
    assert [str(each) for each in config.listen] == ["*:22"]
    assert config.authenticators == ("authorized-keys", "shadow")
    assert (config.password, config.permit_root_login, config.methods) == ("off", "prohibit-password", ())
    assert config.authorized_keys == ("%h/.ssh/authorized_keys", "%h/.ssh/authorized_keys2")
    assert (config.accept_env, config.subsystem, config.host_key) == ((), {"sftp": "off"}, ("/etc/ssh/key",))
    assert (str(config.max_startups), str(config.source_bits)) == ("10:30:100", "32:128")
    assert config.pid_file == "/run/sshd.pid"
    assert (config.limits.login_grace_seconds, config.limits.sessions) == (120, 10)


BECOMES = r"""
Port 2222 => listen = ["*:2222"]
ListenAddress 127.0.0.1:99 => listen = ["127.0.0.1:99"]
AddressFamily inet => listen = ["0.0.0.0:22"]
PasswordAuthentication no => authenticators = ["authorized-keys"]
UsePAM yes => authenticators = ["authorized-keys", "pam-password", "pam"]
PubkeyAuthentication no => authenticators = ["shadow"]
AuthenticationMethods publickey,password hostbased => methods = ["publickey,password"]
AuthorizedKeysFile none => authorized_keys = []
AuthorizedKeysFile %h/a /b/%u c => authorized_keys = ["%h/a", "/b/%u", "%h/c"]
PermitRootLogin without-password =>
PermitRootLogin yes => permit_root_login = "yes"
PermitRootLogin forced-commands-only => permit_root_login = "forced-commands-only"
RefuseConnection yes => deny_users = ["*"]
AllowUsers a b@192.0.2.0/24 a => allow_users = ["a", "b@192.0.2.0/24"]
SetEnv A=1 "B=2 3" => B = "2 3"
PermitUserEnvironment yes => permit_user_environment = ["*"]
PermitUserEnvironment A,B* => permit_user_environment = ["A", "B*"]
ForceCommand echo "a" # b => force_command = "echo \"a\" # b"
Subsystem sftp /usr/lib/openssh/sftp-server -R => read_only = true
Subsystem sftp internal-sftp => sftp = "sftp"
Subsystem sftp /opt/other -x => commands = { sftp = "/opt/other -x" }
Subsystem x /bin/x "a b" => commands = { x = "/bin/x \"a b\"" }
AllowTcpForwarding no => forwards = ["unix", "agent"]
AllowTcpForwarding local => rules = ["connect *:*", "connect-unix *", "listen-unix *", "agent", "x11"]
X11Forwarding yes => forwards = ["tcp", "unix", "agent", "x11"]
DisableForwarding yes => forwards = ["off"]
GatewayPorts clientspecified => gateway_ports = "client"
StreamLocalBindUnlink yes => replace = true
PermitOpen none => permit_open = ["none"]
PermitListen 80 => permit_listen = ["*:80"]
MaxSessions 0 => shell = "off"
ClientAliveInterval 1m => keepalive_seconds = 60
ClientAliveCountMax 0 => keepalive_count_max = 2147483647
RekeyLimit 2G 1h => rekey_bytes = 2147483648
PerSourceMaxStartups 5 => max_startups_per_source = 5
PerSourcePenalties authfail:1m max:10m => auth_failure_seconds = 60.0
PerSourcePenalties no => enabled = false
PerSourcePenaltyExemptList 192.0.2.0/24 => penalty_exempt = ["192.0.2.0/24"]
RequiredRSASize 3072 => required_rsa_size = 3072
RequiredRSASize 1024 =>
Ciphers aes256-ctr,no-such@x,aes128-ctr =>
Ciphers aes256-ctr,arcfour => ciphers = "aes256-ctr"
MACs -hmac-sha1*,umac* => macs = "-hmac-sha1*"
KexAlgorithms +ecdh-sha2-nistp* => kex = "+ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521"
PubkeyAcceptedKeyTypes ssh-ed25519 => user_key_algorithms = "ssh-ed25519"
Compression no => compression = "none"
LogLevel VERBOSE =>
SyslogFacility LOCAL3 => log_to = "syslog:local3"
LogLevel DEBUG2 => log_level = "debug"
Banner /etc/issue => banner = "/etc/issue"
PrintMotd no => print_motd = false
"""


def test_what_keywords_become(tmp_path: Path) -> None:
    for case in BECOMES.strip().splitlines():
        line, _, wanted = case.partition(" =>")
        if "no-such" in line:
            with pytest.raises(Unusable, match="Bad Ciphers"):
                made(tmp_path, line)
            continue
        found = toml(made(tmp_path, line).config)
        assert wanted.strip() in found | {""}, (case, found)
        assert wanted or not found, (case, found)


def test_who_is_not_root_cannot_check_passwords(tmp_path: Path) -> None:
    found = made(tmp_path, "PasswordAuthentication yes\n", root=False)
    assert (found.config.authenticators, len(found.notes)) == (("authorized-keys",), 1)
    found = made(tmp_path, "UsePAM yes\nKbdInteractiveAuthentication no\n", root=False)
    assert found.config.authenticators[1:] == ("pam-password",)


def test_kerberos_is_left_out_where_its_library_is_missing(tmp_path: Path) -> None:
    text = "GSSAPIAuthentication yes\nGSSAPICleanupCredentials no\nGSSAPIStrictAcceptorCheck no\n"
    config = made(tmp_path, text).config
    assert config.authenticators[-1] == "gssapi"
    assert config.plugin["gssapi"] == {"delegation": True, "acceptor": ""}
    found = made(tmp_path, text, kerberos=False)
    assert (found.config.authenticators, len(found.notes)) == (("authorized-keys", "shadow"), 2)


def test_kerberos_is_left_out_where_this_machine_has_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As most that have Fedora's file, which asks for it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    monkeypatch.delenv("KRB5_KTNAME", raising=False)
    monkeypatch.setattr(translated, "_KEYTAB", str(tmp_path / "keytab"))
    monkeypatch.setattr(translated, "_KRB5", str(tmp_path / "krb5.conf"))
    assert translated.this_machine().no_kerberos == f"there is no {tmp_path}/keytab"
    (tmp_path / "krb5.conf").write_text("[libdefaults]\n default_keytab_name = FILE:/x\n")
    assert not translated.this_machine().no_kerberos
    (tmp_path / "krb5.conf").unlink()
    (tmp_path / "keytab").touch()
    assert not translated.this_machine().no_kerberos


FEDORA = """\
Include FOLDER/*.conf
AuthorizedKeysFile .ssh/authorized_keys
Subsystem sftp /usr/libexec/openssh/sftp-server
"""
FEDORA_MORE = """\
Include FOLDER/opensshserver.config
SyslogFacility AUTHPRIV
ChallengeResponseAuthentication no
GSSAPIAuthentication yes
GSSAPICleanupCredentials no
UsePAM yes
X11Forwarding yes
PrintMotd no
AcceptEnv LANG LC_CTYPE LC_NUMERIC
"""
FEDORA_POLICY = """\
Ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes128-gcm@openssh.com,aes128-ctr
MACs hmac-sha2-256-etm@openssh.com,hmac-sha1-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256,umac-128@openssh.com
GSSAPIKeyExchange no
KexAlgorithms mlkem768x25519-sha256,sntrup761x25519-sha512,curve25519-sha256,ecdh-sha2-nistp256
HostKeyAlgorithms ecdsa-sha2-nistp256,ecdsa-sha2-nistp256-cert-v01@openssh.com,ssh-ed25519,rsa-sha2-256
PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256,sk-ecdsa-sha2-nistp256@openssh.com,ssh-ed25519,rsa-sha2-512
CASignatureAlgorithms ecdsa-sha2-nistp256,sk-ssh-ed25519@openssh.com,rsa-sha2-512
RequiredRSASize 2048
"""


def test_fedoras_configuration(tmp_path: Path) -> None:
    """Two files deep, with the lists of its policy."""
    folder = str(tmp_path)
    (tmp_path / "50-redhat.conf").write_text(FEDORA_MORE.replace("FOLDER", folder))
    (tmp_path / "opensshserver.config").write_text(FEDORA_POLICY)
    config = made(tmp_path, FEDORA.replace("FOLDER", folder), kerberos=False).config
    assert config.authenticators == ("authorized-keys", "pam-password")
    assert config.algorithms().kex == ("mlkem768x25519-sha256", "curve25519-sha256", "ecdh-sha2-nistp256")
    assert config.algorithms().ciphers[0] == "aes256-gcm@openssh.com"
    assert "umac" not in config.macs
    assert config.algorithms().macs[1] == "hmac-sha1-etm@openssh.com"


def test_nobody_is_let_in_where_every_method_is_off(tmp_path: Path) -> None:
    config = made(tmp_path, "PubkeyAuthentication no\nPasswordAuthentication no\nTrustedUserCAKeys /x\n").config
    assert config.authenticators == ("authorized-keys",)
    assert (config.authorized_keys, config.trusted_user_ca_keys) == ((), ())


REFUSED = """
PermitTunnel yes
HostbasedAuthentication yes
KerberosAuthentication yes
ChrootDirectory /srv
ExposeAuthInfo yes
ChannelTimeout session=5m
UnusedConnectionTimeout 1m
PubkeyAuthOptions verify-required
HostKeyAgent /run/agent
AllowUsers bob@host.example
AcceptEnv A-B
AuthenticationMethods publickey,publickey
AuthenticationMethods hostbased
AuthenticationMethods keyboard-interactive
PerSourcePenalties overflow:deny-all
PerSourceMaxStartups 0
MACs umac-64@openssh.com
Subsystem sftp internal-sftp -x
AuthorizedKeysCommand /bin/keys
Match Host h.example.org
Match RDomain x
Match User a|ChrootDirectory /srv
"""
HARMLESS = """
PermitTunnel no
HostbasedAuthentication no
KerberosAuthentication no
ExposeAuthInfo no
ChannelTimeout none
UnusedConnectionTimeout none
PubkeyAuthOptions none
Match Host 192.0.2.*
Match User a|MaxAuthTries 6
Match User a|MaxSessions 0
Match User a|RekeyLimit 1G 1h
Match User a|MaxAuthTries 2|ClientAliveInterval 5|ClientAliveCountMax 0
Match User a|CASignatureAlgorithms ssh-ed25519
Match User a|PubkeyAcceptedAlgorithms +ssh-rsa
Match User a|ChrootDirectory /srv|ForceCommand internal-sftp
Match version OpenSSH_4*|PermitTunnel yes
"""
IGNORED = """
VersionAddendum x
IPQoS ef
UseDNS yes
TCPKeepAlive no
X11UseLocalhost no
FingerprintHash md5
LogVerbose x
UsePrivilegeSeparation yes
MACs hmac-sha2-256,umac-64@openssh.com
Match User a|LogLevel DEBUG
Match User a|Banner /x
"""


def test_what_is_refused_ignored_or_harmless(tmp_path: Path) -> None:
    for line in REFUSED.strip().splitlines():
        text = line.replace("|", "\n") + ("\nPermitTTY no" if line.startswith("Match") else "")
        with pytest.raises(Unusable) as caught:
            made(tmp_path, text)
        number = 1 + line.count("|")
        assert f"{tmp_path}/sshd_config line {number}: " in str(caught.value), (line, caught.value)
        assert caught.value.status == 255
    for line in HARMLESS.strip().splitlines():
        assert made(tmp_path, line.replace("|", "\n") + "\nPermitTTY no").notes == (), line
    for line in IGNORED.strip().splitlines():
        notes = [*made(tmp_path, line.replace("|", "\n")).notes]
        directives = Directives()
        directives.add_file(str(tmp_path / "sshd_config"))
        assert len(notes + directives.notes) == 1, (line, notes)


def test_the_first_value_counts_even_if_a_later_one_could_not_be_had(tmp_path: Path) -> None:
    assert made(tmp_path, "PermitTunnel no\nPermitTunnel yes\n").notes == ()


BLOCKS = """\
AllowTcpForwarding yes
X11Forwarding no
DenyUsers z
SetEnv A=1 B=1
Match User bob
    AllowTcpForwarding no
    DenyUsers one
    SetEnv C=1
Match Address 192.0.2.0/24
    X11Forwarding yes
    DenyUsers two
    PasswordAuthentication no
Match Group nobody,nogroup
    PermitTTY no
Match all
    GatewayPorts no
    AllowTcpForwarding local
    PermitRootLogin no
"""


def test_blocks_that_fit_together_are_put_together_as_by_sshd(tmp_path: Path) -> None:
    config = made(tmp_path, BLOCKS).config
    bob = effective(config, Login("bob", "192.0.2.1"))
    assert (bob.forwards, bob.deny_users, bob.set_env) == (("unix", "agent", "x11"), ("one", "two"), {"C": "1"})
    assert (bob.authenticators, bob.permit_root_login, bob.permit_tty) == (("authorized-keys",), "no", True)
    ann = effective(config, Login("ann", "192.0.2.1"))
    assert (ann.forwards, ann.deny_users) == (("tcp", "unix", "agent", "x11"), ("two",))
    assert ann.plugin["allow-list"]["rules"] == ("connect *:*", "connect-unix *", "listen-unix *", "agent", "x11")
    away = effective(config, Login("bob", "198.51.100.1"))
    assert (away.forwards, away.authenticators[1:]) == (("unix", "agent"), ("shadow",))
    assert effective(config, Login("x", groups=("nobody",))).permit_tty is False


def test_logins_with_a_mix_of_blocks_that_cannot_be_had_are_refused(tmp_path: Path) -> None:
    text = "Match Group a\nForceCommand id\nMatch Group b\nForceCommand internal-sftp\nChrootDirectory /srv\n"
    config = made(tmp_path, text).config
    assert effective(config, Login("x", groups=("b",))).plugin["sftp"] == {"root": "/srv", "start": "%h"}
    with pytest.raises(Unusable, match="line 5: ChrootDirectory"):
        effective(config, Login("x", groups=("a", "b")))
    assert "line 3: logins that fit both are refused: " in made(tmp_path, text).notes[0]
    with pytest.raises(Unusable, match="line 3: match tables cannot refuse"):
        plain(config)
    written = plain(made(tmp_path, text.replace("Group b", "User b*")).config)
    assert effective(written, Login("bo", groups=("a",))).deny_users == ("*",)
    assert effective(written, Login("bo")).plugin["sftp"]["root"] == "/srv"


def test_blocks_in_included_files_stand_under_those_around_them(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("PermitTTY no\nMatch User a*\nForceCommand id\n")
    text = f"Match User *b\nInclude {tmp_path}/mo*\nX11Forwarding yes\n"
    config = made(tmp_path, text).config
    for user, wanted in (("ab", (False, "id", True)), ("xb", (False, "", True)), ("ax", (True, "", False))):
        found = effective(config, Login(user))
        assert (found.permit_tty, found.force_command, "x11" in found.forwards) == wanted
    (tmp_path / "more").write_text(f"Include {tmp_path}/more\n")
    with pytest.raises(Unusable, match="Too many recursive"):
        made(tmp_path, text)


def test_files_that_are_written_mean_the_same(tmp_path: Path) -> None:
    blocks = BLOCKS.replace("SetEnv A=1 B=1\n", "")
    (tmp_path / "sshd_config").write_text(f"HostKey /etc/ssh/key\nVersionAddendum x\n{blocks}")
    config, notes = imported([str(tmp_path / "sshd_config")])
    assert [note.partition(": ")[2] for note in notes] == [
        "VersionAddendum: ignored: clients are told dunnart's version alone"
    ]
    (tmp_path / "dunnart.toml").write_text(to_toml(config, changed=True))
    again = load(str(tmp_path / "dunnart.toml"))
    ours = made(tmp_path, blocks).config
    for login in (Login("bob", "192.0.2.1"), Login("bob", "198.51.100.1"), Login("z"), Login("ann", "192.0.2.1"),
                  Login("bob", "192.0.2.1", groups=("nogroup",))):  # fmt: skip
        assert effective(again, login) == effective(config, login)
        left, right = effective(again, login), effective(ours, login)
        assert (left.forwards, left.deny_users, left.plugin) == (right.forwards, right.deny_users, right.plugin)
    with pytest.raises(Unusable, match="line 5: match tables cannot say which set_env"):
        plain(made(tmp_path, BLOCKS).config)
    twice = "Match User a*\nDenyUsers x\nMatch User *b\nDenyUsers y\n"
    with pytest.raises(Unusable, match=r"line 1 and .* line 3: match tables cannot say which deny_users"):
        plain(made(tmp_path, twice).config)
    assert len(plain(made(tmp_path, twice.replace("*", "")).config).match) == 2


def test_a_block_takes_back_what_stands_outside(tmp_path: Path) -> None:
    """As on a bastion: nobody may forward, but for some."""
    outside = "AllowTcpForwarding no\nGatewayPorts yes\nStreamLocalBindUnlink yes\nStreamLocalBindMask 0077\n"
    inside = "AllowTcpForwarding yes\nGatewayPorts no\nStreamLocalBindUnlink no\nStreamLocalBindMask 0177\n"
    config = made(tmp_path, f"{outside}Match User ann\n{inside}").config
    (tmp_path / "dunnart.toml").write_text(to_toml(plain(config), changed=True))
    for each in (config, load(str(tmp_path / "dunnart.toml"))):
        for user, rules, ports, replaces, mask in (
            ("ann", 6, "no", "false", "177"), ("bob", 4, "yes", "true", "77"),
        ):  # fmt: skip
            found = effective(each, Login(user)).plugin
            assert str(found["allow-list"]["rules"]).count(",") == rules - 1
            assert found["tcpip-forward"]["gateway_ports"] == ports
            unix = found["streamlocal-forward"]
            assert (str(unix["replace"]).lower(), str(unix["mask"]).removeprefix("0")) == (replaces, mask)


def test_methods_that_another_block_turns_on(tmp_path: Path) -> None:
    text = "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMatch Address 192.0.2.0/24\n"
    text += "PasswordAuthentication yes\nMatch User ann\nAuthenticationMethods publickey,password\n"
    found = made(tmp_path, text)
    assert [note.partition("line 6: ")[2].rpartition(": ")[2] for note in found.notes] == [
        "logins that fit no other block are refused"
    ]
    (tmp_path / "dunnart.toml").write_text(to_toml(plain(found.config), changed=True))
    for each in (found.config, load(str(tmp_path / "dunnart.toml"))):
        inside, outside = effective(each, Login("ann", "192.0.2.1")), effective(each, Login("ann", "198.51.100.1"))
        assert (inside.methods, inside.deny_users) == (("publickey,password",), ())
        assert outside.deny_users == ("*",)
        assert effective(each, Login("bob", "198.51.100.1")).deny_users == ()
    with pytest.raises(Unusable, match="line 1: AuthenticationMethods: cannot be satisfied"):
        made(tmp_path, "AuthenticationMethods password\nPasswordAuthentication no\n")


def test_a_block_that_says_what_is_so_anyway_comes_before_later_ones(tmp_path: Path) -> None:
    config = made(tmp_path, "Match Group a\nPermitTTY yes\nMatch Group b\nPermitTTY no\n").config
    for each in (config, plain(config)):
        assert effective(each, Login("x", groups=("a", "b"))).permit_tty
        assert not effective(each, Login("x", groups=("b",))).permit_tty


def test_limits_of_logins(tmp_path: Path) -> None:
    text = "MaxSessions 4\nMatch User a*\nMaxAuthTries 2\nMatch User *b\nMaxAuthTries 3\nMaxSessions 1\nRekeyLimit 1M\n"
    config = made(tmp_path, f"{text}ClientAliveInterval 1m\nMatch User *\nMaxSessions 9\n").config
    (tmp_path / "dunnart.toml").write_text(to_toml(plain(config), changed=True))
    for each in (config, load(str(tmp_path / "dunnart.toml"))):
        for user, *wanted in [("ac", 2, 9, 0, GIB), ("cb", 3, 1, 60, MIB), ("ab", 2, 1, 60, MIB),
                              ("c", 6, 9, 0, GIB)]:  # fmt: skip
            found = effective(each, Login(str(user))).limits
            assert [found.max_auth_tries, found.sessions, found.keepalive_seconds, found.rekey_bytes] == wanted, user


def test_blocks_for_users_whom_nobody_knows(tmp_path: Path) -> None:
    config = made(tmp_path, "Match invalid-user User n*\nRefuseConnection yes\n").config
    assert effective(config, Login("no such user")).deny_users == ("*",)
    assert effective(config, Login("nobody")).deny_users == effective(config, Login("else")).deny_users == ()
    with pytest.raises(Unusable, match="line 1: match tables have no invalid-user"):
        plain(config)


def test_what_may_stand_in_a_match_block_is_of_logins() -> None:
    of_logins = {*MAY_MATCH, *(f"limits.{name}" for name in OF_USERS), "banner", "log_level"} - {"limits"}
    for keyword in KEYWORDS.values():
        for option in keyword.mapped.split(", ") if keyword.match and keyword.key != "chrootdirectory" else ():
            assert not option or {option, option.partition(".")[0]} & of_logins, keyword.name


def test_no_line_is_passed_over_for_how_it_begins(tmp_path: Path) -> None:
    for line in ('"ForceCommand" id', "=ForceCommand id", ' = "ForceCommand"=id', "ForceCommand=id"):
        assert made(tmp_path, line).config.force_command == "id", line


def test_none_in_any_case_is_no_file_of_keys(tmp_path: Path) -> None:
    for text in ("AuthorizedKeysFile NONE", "AuthorizedKeysFile None"):
        assert made(tmp_path, f"PasswordAuthentication yes\n{text}").config.authorized_keys == ()


def test_a_tab_parts_sftp_from_its_arguments(tmp_path: Path) -> None:
    config = made(tmp_path, "Match User a\nChrootDirectory /srv\nForceCommand internal-sftp\t-R\n").config
    found = effective(config, Login("a"))
    assert (found.subsystem["sftp"], found.plugin["sftp"]["read_only"]) == ("sftp", True)


def test_a_subsystem_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    config = made(tmp_path, "Subsystem foo@example.com /bin/true -x").config
    assert config.subsystem["foo@example.com"] == "command"
    assert config.plugin["command"]["commands"] == {"foo@example.com": "/bin/true -x"}


def test_a_block_may_speak_of_what_is_off(tmp_path: Path) -> None:
    for text in ("AllowTcpForwarding no\nMatch User a\nGatewayPorts yes", "Match User a\nX11DisplayOffset 20",
                 "AllowStreamLocalForwarding no\nMatch User a\nStreamLocalBindUnlink yes"):  # fmt: skip
        config = made(tmp_path, text).config
        assert effective(config, Login("a")).forwards == effective(config, Login("b")).forwards


def test_tables_say_what_four_blocks_say_together(tmp_path: Path) -> None:
    blocks = ("User bob\nAllowTcpForwarding no", "Group staff\nAllowAgentForwarding no",
              "Address 192.0.2.*\nX11Forwarding yes", "LocalPort 22\nAllowStreamLocalForwarding no")  # fmt: skip
    config = made(tmp_path, "".join(f"Match {block}\n" for block in blocks)).config
    login = Login("bob", "192.0.2.1", "192.0.2.2", 22, ("staff",))
    assert set(effective(config, login).forwards) == {"x11"} == set(effective(plain(config), login).forwards)
    many = "".join(f"Match Group g{number}\nPermitTTY {'no' if number % 2 else 'yes'}\n" for number in range(20))
    with pytest.raises(Unusable, match="too many blocks"):
        plain(made(tmp_path, many).config)


def test_every_keyword_is_one_thing() -> None:
    for key, keyword in KEYWORDS.items():
        assert [bool(keyword.mapped), bool(keyword.ignored), bool(keyword.refused)].count(True) == 1, key
        assert keyword.ignored or keyword.mapped or keyword.default in keyword.harmless, key
    assert not KEYWORDS.keys() & (DEPRECATED | ALIASES.keys())
    assert set(ALIASES.values()) <= KEYWORDS.keys()
