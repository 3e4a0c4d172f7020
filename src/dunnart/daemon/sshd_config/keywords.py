"""Every keyword of sshd_config (OpenSSH 10), and what becomes of it here: the one table.

A keyword is *mapped* to an option of dunnart's; or *ignored*, with a warning, for it concerns nothing that matters to
who may do what; or *refused*, which stops the start, unless its value asks for what there is anyway.
"""

from __future__ import annotations

from typing import Literal

from dunnart.daemon.sshd_config import readers
from dunnart.daemon.sshd_config.readers import NONE, Reader, Value
from dunnart.records import dataclass

SPOKEN = "OpenSSH_10.2"
"""The version whose keywords these are, for `Match version`."""


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword.

    Attributes:
        name: as the manual writes it.
        read: reads the words behind it.
        default: its value where it does not stand.
        mapped: the option that it is; "" if it is none.
        ignored: why it does nothing; "" if it does something.
        refused: why it cannot be had; "" if it can.
        harmless: values with which it is neither ignored nor refused, for they ask for what there is.
        match: it may stand in a Match block.
        keep: which of several lines count: the first, all, the last, or the first of each subsystem's name.
        lines: how `sshd -T` writes a list: one entry a line, or all on one.
    """

    name: str
    read: Reader
    default: Value
    mapped: str = ""
    ignored: str = ""
    refused: str = ""
    harmless: tuple[Value, ...] = ()
    match: bool = True
    keep: Literal["first", "all", "last", "named"] = "first"
    lines: Literal["each", "one"] = "one"

    @property
    def key(self) -> str:
        """The name in small letters."""
        return self.name.lower()


def _listed(*found: Keyword) -> dict[str, Keyword]:
    return {each.key: each for each in found}


_YES_NO = readers.yes_or_no
_FORWARD = readers.choice("yes", "no", "local", "remote", all="yes")
_HOSTBASED = "concerns logins by a host's key, which are refused anyway"
_NO_KERBEROS = "passwords are not tried at a Kerberos server; PAM can do that, with UsePAM yes"
_PROGRAMS = "sshd's programs of its own are not used"
_GSSAPI = "plugin.gssapi"

KEYWORDS = _listed(
    # Where it listens, in the order of sshd -T
    Keyword("Port", readers.port, ("22",), "listen", match=False, keep="all", lines="each"),
    Keyword("AddressFamily", readers.choice("any", "inet", "inet6"), "any", "listen", match=False),
    Keyword("ListenAddress", readers.listen_address, (), "listen", match=False, keep="all", lines="each"),
    # Numbers
    Keyword("UsePAM", _YES_NO, "no", "account", match=False),
    Keyword("PAMServiceName", readers.word, "sshd", "plugin.pam.service"),
    Keyword("LoginGraceTime", readers.seconds, 120, "limits.login_grace_seconds", match=False),
    Keyword("X11DisplayOffset", readers.number, 10, "plugin.x11-forwarding.display_offset"),
    Keyword("MaxAuthTries", readers.number, 6, "limits.max_auth_tries"),
    Keyword("MaxSessions", readers.number, 10, "limits.sessions"),
    Keyword("ClientAliveInterval", readers.seconds, 0, "limits.keepalive_seconds"),
    Keyword("ClientAliveCountMax", readers.number, 3, "limits.keepalive_count_max"),
    Keyword("RequiredRSASize", readers.number, 1024, "required_rsa_size"),
    Keyword("StreamLocalBindMask", readers.mask, "0177", "plugin.streamlocal-forward.mask", keep="last"),
    Keyword("UnusedConnectionTimeout", readers.seconds_or_none, 0, refused="connections are not ended for having no "
            "channels; limits.idle_seconds ends those on which nothing moves", harmless=(0,)),
    # Words
    Keyword("PermitRootLogin", readers.choice(
        "yes", "no", "prohibit-password", "forced-commands-only", without_password="prohibit-password",  # noqa: S106
    ), "prohibit-password", "permit_root_login"),
    Keyword("IgnoreRhosts", readers.choice("yes", "no", "shosts-only"), "yes", ignored=_HOSTBASED,
            harmless=("yes", "no", "shosts-only")),
    Keyword("IgnoreUserKnownHosts", _YES_NO, "no", ignored=_HOSTBASED, harmless=("no", "yes"), match=False),
    Keyword("HostbasedAuthentication", _YES_NO, "no", refused="there are no logins by a host's key", harmless=("no",)),
    Keyword("HostbasedUsesNameFromPacketOnly", _YES_NO, "no", ignored=_HOSTBASED, harmless=("yes", "no")),
    Keyword("PubkeyAuthentication", _YES_NO, "yes", "authenticators"),
    Keyword("KerberosAuthentication", _YES_NO, "no", refused=_NO_KERBEROS, harmless=("no",)),
    Keyword("KerberosOrLocalPasswd", _YES_NO, "yes", ignored=_NO_KERBEROS, harmless=("yes", "no"), match=False),
    Keyword("KerberosTicketCleanup", _YES_NO, "yes", ignored=_NO_KERBEROS, harmless=("yes", "no"), match=False),
    Keyword("KerberosGetAFSToken", _YES_NO, "no", refused=_NO_KERBEROS, harmless=("no",), match=False),
    Keyword("GSSAPIAuthentication", _YES_NO, "no", "authenticators"),
    Keyword("GSSAPICleanupCredentials", _YES_NO, "yes", ignored="tickets that clients forward are always removed when "
            "the connection ends", harmless=("yes",), match=False),
    Keyword("GSSAPIDelegateCredentials", _YES_NO, "yes", f"{_GSSAPI}.delegation", match=False),
    Keyword("GSSAPIKeyExchange", _YES_NO, "no", "authenticators", match=False),
    Keyword("GSSAPIStrictAcceptorCheck", _YES_NO, "yes", f"{_GSSAPI}.acceptor", match=False),
    Keyword("GSSAPIStoreCredentialsOnRekey", _YES_NO, "no", refused="tickets are taken at the login alone",
            harmless=("no",), match=False),
    Keyword("GSSAPIKexAlgorithms", readers.word, "", ignored="the Kerberos key exchanges are not chosen one by one",
            match=False),
    Keyword("PasswordAuthentication", _YES_NO, "yes", "authenticators"),
    Keyword("KbdInteractiveAuthentication", _YES_NO, "yes", "authenticators"),
    Keyword("PrintMotd", _YES_NO, "yes", "print_motd", match=False),
    Keyword("PrintLastLog", _YES_NO, "yes", "print_last_log", match=False),
    Keyword("X11Forwarding", _YES_NO, "no", "forwards"),
    Keyword("X11UseLocalhost", _YES_NO, "yes", ignored="displays are listened for on loopback addresses only",
            harmless=("yes",)),
    Keyword("PermitTTY", _YES_NO, "yes", "permit_tty"),
    Keyword("PermitUserRC", _YES_NO, "yes", "permit_user_rc"),
    Keyword("StrictModes", _YES_NO, "yes", "strict_modes", match=False),
    Keyword("TCPKeepAlive", _YES_NO, "yes", ignored="it is always on", harmless=("yes",), match=False),
    Keyword("PermitEmptyPasswords", _YES_NO, "no", "permit_empty_passwords"),
    Keyword("Compression", readers.choice("yes", "no", delayed="yes"), "yes", "compression", match=False),
    Keyword("GatewayPorts", readers.choice("yes", "no", "clientspecified"), "no", "plugin.tcpip-forward.gateway_ports"),
    Keyword("UseDNS", _YES_NO, "no", ignored="hosts' names are not looked up", harmless=("no",), match=False),
    Keyword("AllowTcpForwarding", _FORWARD, "yes", "forwards, plugin.allow-list.rules"),
    Keyword("AllowAgentForwarding", _YES_NO, "yes", "forwards"),
    Keyword("DisableForwarding", _YES_NO, "no", "forwards"),
    Keyword("AllowStreamLocalForwarding", _FORWARD, "yes", "forwards, plugin.allow-list.rules"),
    Keyword("StreamLocalBindUnlink", _YES_NO, "no", "plugin.streamlocal-forward.replace"),
    Keyword("FingerprintHash", readers.digest, "SHA256", ignored="fingerprints are SHA256", harmless=("SHA256",),
            match=False, keep="last"),
    Keyword("ExposeAuthInfo", _YES_NO, "no", refused="sessions are not told how users logged in", harmless=("no",)),
    Keyword("RefuseConnection", _YES_NO, "no", "deny_users"),
    # Strings
    Keyword("PidFile", readers.file, "/run/sshd.pid", "pid_file", match=False),
    Keyword("ModuliFile", readers.file, "/etc/ssh/moduli", match=False, harmless=("/etc/ssh/moduli",),
            ignored="the groups of diffie-hellman-group-exchange are those of RFC 3526"),
    Keyword("XAuthLocation", readers.file, "/usr/bin/xauth", match=False, harmless=("/usr/bin/xauth",),
            ignored="xauth is looked for in the usual places"),
    Keyword("Ciphers", readers.algorithms("ciphers"), "", "ciphers", match=False),
    Keyword("MACs", readers.algorithms("macs"), "", "macs", match=False),
    Keyword("Banner", readers.file, NONE, "banner"),
    Keyword("ForceCommand", readers.text, NONE, "force_command"),
    Keyword("ChrootDirectory", readers.word, NONE, "plugin.sftp.root, with ForceCommand internal-sftp"),
    Keyword("TrustedUserCAKeys", readers.file, NONE, "trusted_user_ca_keys"),
    Keyword("SecurityKeyProvider", readers.word, "internal", ignored="security keys' signatures need none",
            harmless=("internal", NONE), match=False),
    Keyword("AuthorizedPrincipalsFile", readers.own_file, NONE, "authorized_principals_file"),
    Keyword("VersionAddendum", readers.text, NONE, ignored="clients are told dunnart's version alone",
            harmless=(NONE,), match=False),
    Keyword("AuthorizedKeysCommand", readers.command, NONE, "authorized_keys_command"),
    Keyword("AuthorizedKeysCommandUser", readers.word, NONE, "authorized_keys_command_user"),
    Keyword("AuthorizedPrincipalsCommand", readers.command, NONE, "authorized_principals_command"),
    Keyword("AuthorizedPrincipalsCommandUser", readers.word, NONE, "authorized_principals_command_user"),
    Keyword("HostKeyAgent", readers.word, NONE, refused="host keys come from files", harmless=(NONE,), match=False),
    Keyword("KexAlgorithms", readers.algorithms("kex"), "", "kex", match=False),
    Keyword("CASignatureAlgorithms", readers.algorithms("ca_signature"), "", "ca_signature_algorithms"),
    Keyword("HostbasedAcceptedAlgorithms", readers.word, "", ignored=_HOSTBASED),
    Keyword("HostKeyAlgorithms", readers.algorithms("host_key"), "", "host_key_algorithms", match=False),
    Keyword("PubkeyAcceptedAlgorithms", readers.algorithms("user_key"), "", "user_key_algorithms"),
    Keyword("RDomain", readers.word, NONE, refused="there are no routing domains here", harmless=(NONE,)),
    Keyword("SshdSessionPath", readers.file, NONE, ignored=_PROGRAMS, match=False),
    Keyword("SshdAuthPath", readers.file, NONE, ignored=_PROGRAMS, match=False),
    Keyword("PerSourcePenaltyExemptList", readers.networks, NONE, "penalty_exempt", match=False),
    Keyword("LogLevel", readers.log_level, "INFO", "log_level"),
    Keyword("SyslogFacility", readers.log_facility, "AUTH", "log_to", match=False),
    Keyword("DebianBanner", _YES_NO, "yes", ignored="clients are told dunnart's version alone", harmless=("yes", "no"),
            match=False),
    # Lists
    Keyword("AuthorizedKeysFile", readers.files, (".ssh/authorized_keys", ".ssh/authorized_keys2"), "authorized_keys"),
    Keyword("RevokedKeys", readers.files, (NONE,), "revoked_keys"),
    Keyword("HostKey", readers.one_more_file, (), "host_key", match=False, keep="all", lines="each"),
    Keyword("HostCertificate", readers.one_more_file, (), "host_certificate", match=False, keep="all", lines="each"),
    Keyword("AllowUsers", readers.users, (), "allow_users", keep="all", lines="each"),
    Keyword("DenyUsers", readers.users, (), "deny_users", keep="all", lines="each"),
    Keyword("AllowGroups", readers.patterns, (), "allow_groups", keep="all", lines="each"),
    Keyword("DenyGroups", readers.patterns, (), "deny_groups", keep="all", lines="each"),
    Keyword("AcceptEnv", readers.environment_names, (), "accept_env", keep="all", lines="each"),
    Keyword("SetEnv", readers.environment, (), "set_env", lines="each"),
    Keyword("AuthenticationMethods", readers.authentication_methods, ("any",), "methods"),
    Keyword("LogVerbose", readers.strings, (), ignored="LogLevel DEBUG tells more"),
    Keyword("ChannelTimeout", readers.timeouts, (NONE,), refused="channels are not ended one by one; "
            "limits.idle_seconds ends connections on which nothing moves", harmless=((NONE,),)),
    Keyword("Subsystem", readers.subsystem, (), "subsystem", keep="named"),
    # What is written in ways of its own
    Keyword("MaxStartups", readers.startups, "10:30:100", "max_startups", match=False),
    Keyword("PerSourceMaxStartups", readers.number_or_none, NONE, "max_startups_per_source", match=False),
    Keyword("PerSourceNetBlockSize", readers.netblock_size, "32:128", "source_bits", match=False),
    Keyword("PermitTunnel", readers.tunnel, "no", refused="networks are not joined", harmless=("no",)),
    Keyword("IPQoS", readers.quality_of_service, "lowdelay throughput", ignored="packets bear no class of service"),
    Keyword("RekeyLimit", readers.rekey_limit, "0 0", "limits.rekey_bytes, limits.rekey_seconds"),
    Keyword("PermitOpen", readers.forward_rules(to_listen=False), ("any",), "permit_open"),
    Keyword("PermitListen", readers.forward_rules(to_listen=True), ("any",), "permit_listen"),
    Keyword("PermitUserEnvironment", readers.permit_user_environment, "no", "permit_user_environment", match=False),
    Keyword("PubkeyAuthOptions", readers.key_options, NONE, refused="keys say themselves what is wanted of the "
            "hardware that keeps them: no-touch-required, verify-required", harmless=(NONE,)),
    Keyword("PerSourcePenalties", readers.penalties, (), "penalties", match=False, keep="all"),
)  # fmt: skip
"""The keywords by their names in small letters, in the order in which `sshd -T` prints them."""

ALIASES = {
    "hostdsakey": "hostkey", "hostbasedacceptedkeytypes": "hostbasedacceptedalgorithms",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms", "dsaauthentication": "pubkeyauthentication",
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "skeyauthentication": "kbdinteractiveauthentication", "keepalive": "tcpkeepalive",
}  # fmt: skip
"""Older names."""
SILENT = frozenset({"protocol"})
"""What is left of sshd's first protocol, without a word."""
DEPRECATED = frozenset({
    "serverkeybits", "keyregenerationinterval", "rhostsauthentication", "rhostsrsaauthentication", "rsaauthentication",
    "checkmail", "uselogin", "verifyreversemapping", "reversemappingcheck", "authorizedkeysfile2",
    "useprivilegeseparation", "kerberostgtpassing", "afstokenpassing",
})  # fmt: skip
"""What sshd itself warns of and does not do."""
IN_MATCH_TOO = frozenset({"rhostsrsaauthentication", "rsaauthentication", "authorizedkeysfile2"})
"""Those of them that may stand in a Match block."""
