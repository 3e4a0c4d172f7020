"""The keywords of ssh_config(5): how each is read, and which of them mean something here.

Three kinds are told apart. Those that are `USED` do what they do in ssh. Those that are `UNUSED` can be left out
without weakening anything, and are noted with -v. Whatever else ssh knows would promise something that is not there: it
is an error unless it is set to what is the case anyway.
"""

from __future__ import annotations

SAME = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "skeyauthentication": "kbdinteractiveauthentication",
    "tisauthentication": "kbdinteractiveauthentication",
    "dsaauthentication": "pubkeyauthentication",
    "identityfile2": "identityfile",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "hostbasedkeytypes": "hostbasedacceptedalgorithms",
    "smartcarddevice": "pkcs11provider",
    "keepalive": "tcpkeepalive",
}
"""Older names."""

LINES = frozenset(("proxycommand", "remotecommand", "localcommand", "knownhostscommand"))
"""The value is the rest of the line, as it is."""

SEVERAL = frozenset(
    """
    canonicaldomains canonicalizepermittedcnames channeltimeout globalknownhostsfile ipqos localforward
    logverbose obscurekeystroketiming permitremoteopen rekeylimit remoteforward sendenv setenv
    userknownhostsfile
    """.split()  # noqa: SIM905 - a literal would have a line for each
)
"""The value is more than one word."""

COLLECTED = frozenset(("identityfile", "certificatefile", "localforward", "remoteforward", "dynamicforward", "sendenv"))
"""All values count, not only the first."""

USED = frozenset(
    """
    addressfamily batchmode bindaddress certificatefile ciphers clearallforwardings compression
    connecttimeout dynamicforward escapechar exitonforwardfailure forkafterauthentication
    forwardagent gatewayports globalknownhostsfile hashknownhosts hostkeyalgorithms hostkeyalias hostname
    identitiesonly identityagent identityfile kbdinteractiveauthentication kexalgorithms localforward loglevel
    macs numberofpasswordprompts passwordauthentication port preferredauthentications proxycommand proxyjump
    pubkeyacceptedalgorithms pubkeyauthentication rekeylimit remotecommand remoteforward requesttty sendenv
    serveralivecountmax serveraliveinterval sessiontype setenv stdinnull stricthostkeychecking user
    userknownhostsfile
    """.split()  # noqa: SIM905 - a literal would have a line for each
)

UNUSED = frozenset(
    """
    addkeystoagent canonicaldomains canonicalizefallbacklocal canonicalizehostname canonicalizemaxdots
    canonicalizepermittedcnames casignaturealgorithms channeltimeout checkhostip cipher compressionlevel
    connectionattempts controlmaster controlpath controlpersist enableescapecommandline enablesshkeysign fallbacktorsh
    fingerprinthash forwardx11 forwardx11timeout forwardx11trusted globalknownhostsfile2 gssapiauthentication
    gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange
    gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns hostbasedacceptedalgorithms
    hostbasedauthentication ipqos kbdinteractivedevices localcommand logverbose nohostauthenticationforlocalhost
    obscurekeystroketiming permitlocalcommand pkcs11provider protocol rhostsrsaauthentication rsaauthentication
    securitykeyprovider streamlocalbindmask streamlocalbindunlink syslogfacility tag tcpkeepalive tunneldevice
    updatehostkeys useprivilegedport userknownhostsfile2 usersh verifyhostkeydns versionaddendum visualhostkey
    warnweakcrypto xauthlocation
    """.split()  # noqa: SIM905 - a literal would have a line for each
)

REFUSED = {
    "bindinterface": (), "knownhostscommand": ("none",), "permitremoteopen": ("any",), "proxyusefdpass": ("no",),
    "refuseconnection": (), "requiredrsasize": ("0", "1024", "2048"), "revokedhostkeys": ("none",), "tunnel": ("no",),
}  # fmt: skip
"""What cannot be had here, and the values that ask for nothing. RSA keys of less than 2048 bits are never taken."""

NEGLIGIBLE = ("no", "none", "auto", "ask", "false")
"""Values of what is unused that are not worth a note."""
