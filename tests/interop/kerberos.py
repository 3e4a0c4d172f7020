"""A Kerberos realm of one's own: MIT's KDC in a folder, on a free port of the loopback address."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.interop.support import SECONDS, environment, eventually, free_port, program

REALM = "DUNNART.TEST"
PASSWORD = "open sesame"
"""Everybody's."""


class Realm:
    """A realm whose KDC runs until `close`.

    Args:
        folder: for its database and everybody's files.
        name: the realm's.

    Attributes:
        variables: what programs need in their environment to find it.
        keytab: the keys of host/localhost.
    """

    def __init__(self, folder: Path, name: str = REALM) -> None:
        self.folder = folder
        self.name = name
        self.keytab = str(folder / "keytab")
        address = f"127.0.0.1:{free_port()}"
        (folder / "krb5.conf").write_text(
            f"[libdefaults]\ndefault_realm = {name}\ndns_lookup_kdc = false\ndns_lookup_realm = false\nrdns = false\n"
            "dns_canonicalize_hostname = false\nudp_preference_limit = 1\nforwardable = true\n"
            f"[realms]\n{name} = {{\n kdc = {address}\n"
            " auth_to_local = RULE:[2:$1;$2](^.*;admin$)s/;admin$//\n auth_to_local = DEFAULT\n}\n"
        )
        (folder / "kdc.conf").write_text(
            f'[kdcdefaults]\nkdc_listen = ""\nkdc_tcp_listen = {address}\n[realms]\n{name} = {{\n'
            f" database_name = {folder}/principal\n key_stash_file = {folder}/stash\n}}\n"
            f"[logging]\nkdc = FILE:{folder}/kdc.log\nadmin_server = FILE:{folder}/admin.log\n"
        )
        self.variables = {
            "KRB5_CONFIG": f"{folder}/krb5.conf",
            "KRB5_KDC_PROFILE": f"{folder}/kdc.conf",
            "KRB5RCACHENAME": f"dfl:{folder}",
            "KRB5CCNAME": f"FILE:{folder}/nobody's",
        }
        self._run("kdb5_util", "create", "-s", "-P", "master", "-r", name)
        self.add(f"host/localhost@{name}", key=self.keytab)
        command = [program("krb5kdc"), "-n", "-r", name]
        self._kdc = subprocess.Popen(command, env=self._environment(), stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)  # fmt: skip
        log = folder / "kdc.log"
        if not eventually(lambda: log.exists() and "commencing operation" in log.read_text()):
            self.close()
            pytest.fail("the KDC did not start")

    def close(self) -> None:
        """End the KDC."""
        self._kdc.terminate()
        self._kdc.wait(SECONDS)

    def _environment(self, **more: str) -> dict[str, str]:
        return environment(self.folder, **(self.variables | more))

    def _run(self, *command: str, text: str = "") -> None:
        subprocess.run([program(command[0]), *command[1:]], env=self._environment(), input=text, check=True, text=True,
                       capture_output=True, timeout=SECONDS)  # fmt: skip

    def add(self, principal: str, *, key: str | None = None) -> None:
        """Add a principal with everybody's password, or with a random key that goes into a keytab."""
        how = ["-randkey"] if key else ["-pw", f'"{PASSWORD}"']
        self._run("kadmin.local", "-r", self.name, "-q", " ".join(["addprinc", *how, principal]))
        if key:
            self._run("kadmin.local", "-r", self.name, "-q", f"ktadd -k {key} {principal}")

    def log_in(self, principal: str, *options: str) -> dict[str, str]:
        """Get a ticket, and give the variables of somebody who has it."""
        cache = f"FILE:{self.folder}/of-{principal.replace('/', '-')}"
        command: Sequence[str] = (program("kinit"), *options, principal)
        subprocess.run(command, env=self._environment(KRB5CCNAME=cache), input=PASSWORD + "\n", check=True, text=True,
                       capture_output=True, timeout=SECONDS)  # fmt: skip
        return self.variables | {"KRB5CCNAME": cache}
