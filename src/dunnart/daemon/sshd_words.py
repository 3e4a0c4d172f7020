"""What options of sshd_config are called here, where the names are too unlike each other to be guessed."""

from __future__ import annotations

from dunnart.daemon.sshd_config.keywords import ALIASES, KEYWORDS

# Where the table's word does not say enough to write it.
_IN_MORE_WORDS = {
    "passwordauthentication": 'authenticators, as ["shadow"] or ["password-file"], and password',
    "pubkeyauthentication": "methods",
    "kbdinteractiveauthentication": 'authenticators, as ["pam"]',
    "usepam": 'account = "pam"',
    "allowtcpforwarding": 'forwards, whose entry "tcp" it is',
    "allowstreamlocalforwarding": 'forwards, whose entry "unix" it is',
    "allowagentforwarding": 'forwards, whose entry "agent" it is',
    "x11forwarding": 'forwards, whose entry "x11" it is',
    "disableforwarding": 'forwards = ["off"]',
    "chrootdirectory": "plugin.sftp.root, for files",
}
OUR_WORDS = {
    key: _IN_MORE_WORDS.get(key, each.mapped)
    for key, each in KEYWORDS.items()
    if each.mapped and each.mapped.replace("_", "") != key  # a mere spelling is found without
}


def our_word(name: str) -> str | None:
    """Say what an option of sshd's, written in whatever case, is called here; None: it is none of these."""
    key = name.lower().replace("_", "").replace("-", "")
    found = OUR_WORDS.get(ALIASES.get(key, key))
    return None if found is None else f"there is no such option; sshd's {name} is {found} here"
