"""What options of sshd_config are called here, where the names are too unlike each other to be guessed."""

from __future__ import annotations

OUR_WORDS = {
    "port": "listen",
    "listenaddress": "listen",
    "authorizedkeysfile": "authorized_keys",
    "passwordauthentication": 'authenticators, as ["shadow"] or ["password-file"], and password',
    "pubkeyauthentication": "methods",
    "kbdinteractiveauthentication": 'authenticators, as ["pam"]',
    "authenticationmethods": "methods",
    "usepam": 'account = "pam"',
    "allowtcpforwarding": 'forwards, whose entry "tcp" it is',
    "allowstreamlocalforwarding": 'forwards, whose entry "unix" it is',
    "allowagentforwarding": 'forwards, whose entry "agent" it is',
    "x11forwarding": 'forwards, whose entry "x11" it is',
    "disableforwarding": 'forwards = ["off"]',
    "gatewayports": "plugin.tcpip-forward.gateway_ports",
    "x11displayoffset": "plugin.x11-forwarding.display_offset",
    "chrootdirectory": "plugin.sftp.root, for files",
    "logingracetime": "limits.login_grace_seconds",
    "maxauthtries": "limits.max_auth_tries",
    "maxsessions": "limits.sessions",
    "clientaliveinterval": "limits.keepalive_seconds",
    "clientalivecountmax": "limits.keepalive_count_max",
    "rekeylimit": "limits.rekey_bytes and limits.rekey_seconds",
    "kexalgorithms": "kex",
    "persourcemaxstartups": "max_startups_per_source",
    "persourcenetblocksize": "source_bits",
    "persourcepenalties": "penalties",
}


def our_word(name: str) -> str | None:
    """Say what an option of sshd's, written in whatever case, is called here; None: it is none of these."""
    found = OUR_WORDS.get(name.lower().replace("_", "").replace("-", ""))
    return None if found is None else f"there is no such option; sshd's {name} is {found} here"
