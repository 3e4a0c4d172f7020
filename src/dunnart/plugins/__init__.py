"""The built-in plug-ins, a file each: on the public `dunnart.server` and `dunnart.keys`, and the log's `clean`."""

from __future__ import annotations

BUILT_IN = {
    "dunnart.authenticators": {
        "authorized-keys": "dunnart.plugins.authorized_keys:from_files",
        "gssapi": "dunnart.plugins.kerberos:Kerberos",
        "gssapi-keyex": "dunnart.plugins.kerberos:KerberosKeyExchange",
        "oidc": "dunnart.plugins.oidc:Oidc",
        "one-time-password": "dunnart.plugins.one_time_password:for_this_run",
        "pam": "dunnart.plugins.pam:Pam",
        "pam-password": "dunnart.plugins.pam:PamPassword",
        "password-file": "dunnart.plugins.password_file:PasswordFile",
        "shadow": "dunnart.plugins.shadow:Shadow",
        "totp": "dunnart.plugins.totp:Totp",
    },
    "dunnart.accounts": {
        "listed-shell": "dunnart.plugins.listed_shell:ListedShell",
        "pam": "dunnart.plugins.pam:PamAccounts",
        "shadow": "dunnart.plugins.shadow:ShadowAccounts",
    },
    "dunnart.key_sources": {
        "http": "dunnart.plugins.http_keys:HttpKeys",
        "ldap": "dunnart.plugins.ldap_keys:LdapKeys",
        "sql": "dunnart.plugins.sql_keys:SqlKeys",
    },
    "dunnart.shells": {
        "os": "dunnart.plugins.os_process:shell",
        "status": "dunnart.plugins.status:status_shell",
    },
    "dunnart.execs": {
        "os": "dunnart.plugins.os_process:commands",
        "scp": "dunnart.plugins.scp:Scp",
        "status": "dunnart.plugins.status:status_shell",
    },
    "dunnart.subsystems": {
        "command": "dunnart.plugins.subsystem_command:SubsystemCommand",
        "sftp": "dunnart.plugins.sftp:Sftp",
        "status": "dunnart.plugins.status:status_shell",
    },
    "dunnart.channel_types": {
        "direct-streamlocal": "dunnart.plugins.direct_streamlocal:DirectStreamlocal",
        "direct-tcpip": "dunnart.plugins.direct_tcpip:DirectTcpip",
    },
    "dunnart.global_requests": {
        "streamlocal-forward": "dunnart.plugins.streamlocal_forward:StreamlocalForward",
        "tcpip-forward": "dunnart.plugins.tcpip_forward:TcpipForward",
    },
    "dunnart.session_requests": {
        "agent-forwarding": "dunnart.plugins.agent_forwarding:AgentForwarding",
        "x11-forwarding": "dunnart.plugins.x11_forwarding:X11Forwarding",
    },
    "dunnart.forwarding_policies": {
        "allow-list": "dunnart.plugins.allow_list:AllowList",
    },
    "dunnart.audit_sinks": {
        "btmp": "dunnart.plugins.failed_logins:FailedLogins",
        "log": "dunnart.plugins.audit_log:audit_log",
    },
}
"""Their names and factories, as pyproject.toml advertises them: entry-point group → name → "module:attr"."""
