"""`dunnart ssh` against OpenSSH's sshd, Dropbear and `dunnart serve`: sessions, people, host keys, ways to log in."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

import dunnart
from dunnart.daemon.ways_in import this_user
from dunnart.keys import KnownHosts, PrivateKey
from dunnart.server import Allow, Attempt, Deny, InteractiveCredential, PasswordCredential, Prompt
from tests.interop.peers import SERVERS, Peers
from tests.interop.ssh_programs import Home, Person, line, way
from tests.interop.support import MIB, Keys, program, ssh_agent

USER = this_user().name


@pytest.mark.parametrize("name", SERVERS)
def test_commands(name: str, peers: Peers, keys: Keys, home: Home) -> None:
    to = way(peers[name], keys.path("ed25519"))
    home.knows(peers[name])
    data = os.urandom(3 * MIB)
    done = home.run(*to, "sha256sum; echo err >&2; exit 7", said=data, status=7)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert done.stderr == b"err\n"
    assert home.run(*to, "-tt", "stty size; echo $TERM; exit 3", status=3).stdout.split()[-1] == b"xterm"
    shell = home.run(*to, said=b"head -c 3000000 /dev/zero; kill -KILL $$\n", status=255)
    assert shell.stdout == bytes(3_000_000)
    assert shell.stderr == b"dunnart ssh: the program was ended by signal KILL\n"


def test_a_person_at_a_terminal(peers: Peers, keys: Keys, home: Home) -> None:
    """A host that is not known, its size, escapes, and a terminal that is put right whenever dunnart lets go of it."""
    peer = peers["sshd"]
    to = " ".join(line("-p", str(peer.port), "-i", keys.path("ed25519"), f"{USER}@127.0.0.1"))
    with Person(["bash", "--norc", "--noprofile", "-i"], home.environment | {"PS1": "here> "}) as person:
        person.sees("here> ")
        person.types(f"{to}; echo status=$?\r")
        assert peer.host_key.fingerprint() in person.sees("itself)? ")
        person.types("maybe\r")
        person.sees("or the fingerprint: ")
        person.types("yes\r")
        person.types("PS1='the''re> '\r")
        person.sees("there> ")
        person.size(33, 101)
        person.types("until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; echo re''sized\r")
        person.sees("resized")
        person.types("\r~?")
        person.sees("end the connection")
        person.types("\r~#")
        person.sees("0 session")
        person.types("\recho ~~; ec''ho $((40+2))\r")
        person.sees("42")
        person.types("\r~\x1a")
        person.sees("[suspended]")
        person.sees("here> ")
        person.types("stty -a | grep -o '.icanon\\|.echo '\r")
        assert "-icanon" not in person.sees("here> ")
        person.types("fg\r")
        person.types("\recho ba''ck\r")
        person.sees("back")
        person.sees("there> ")
        person.types("\r~.")
        person.sees("closed.\r\n")
        person.sees("here> ")
        person.types("echo status=$?\r")
        person.sees("status=255")
        person.sees("here> ")
        person.types(f"{to} -t 'echo ag''ain; exit 6'; echo status=$?\r")
        assert "not known" not in person.sees("again")
        assert "closed." in person.sees("status=6")
        person.types("stty -a | grep -o '.icanon'; exit\r")
        assert person.leaves() == 0
        assert b"-icanon" not in person.seen
    known = KnownHosts((home.folder / ".ssh" / "known_hosts").read_text())
    assert known.check("127.0.0.1", peer.port, peer.host_key) == "known"


def test_keys_of_hosts(peers: Peers, keys: Keys, home: Home) -> None:
    """Taken without a question, hashed, not known, changed, revoked, under another name, not looked at."""
    peer = peers["dropbear"]
    file = home.folder / ".ssh" / "known_hosts"
    to = way(peer, keys.path("ed25519"))
    refused = home.run(*to, "true", status=255).stderr.decode()
    assert "is not known" in refused
    assert peer.host_key.fingerprint() in refused
    first = home.run("-o", "StrictHostKeyChecking=accept-new", "-o", "HashKnownHosts=yes", *to, "true")
    assert b"is known from now on" in first.stderr
    assert file.read_text().startswith("|1|")
    assert home.run(*to, "true").stderr == b""
    other = PrivateKey.generate("ed25519").public
    file.write_text(f"\n[127.0.0.1]:{peer.port} {other.line()}\n")
    for strict in ("accept-new", "no", "ask"):
        changed = home.run("-o", f"StrictHostKeyChecking={strict}", *to, "true", status=255).stderr.decode()
        assert "has changed" in changed
        assert f"{file}:2" in changed
    file.write_text(f"@revoked * {peer.host_key.line()}\n")
    assert b"@revoked" in home.run("-o", "StrictHostKeyChecking=no", *to, "true", status=255).stderr
    file.write_text(f"alias {peer.host_key.line()}\n")
    home.run("-o", "HostKeyAlias=alias", *to, "true")
    home.run("-yy", "-i", keys.path("ed25519"), f"{USER}@127.0.0.1/{peer.port}", "true", command="dbclient")


def test_a_passphrase_an_agent_and_one_that_is_forwarded(peers: Peers, keys: Keys, home: Home, tmp_path: Path) -> None:
    home.knows(*peers.all())
    key = tmp_path / "locked"
    key.write_bytes(keys.folder.joinpath("ed25519").read_bytes())
    key.chmod(0o600)
    subprocess.run(
        [program("ssh-keygen"), "-q", "-p", "-N", "the words", "-Z", "aes256-ctr", "-a", "4", "-f", str(key)],
        check=True,
    )
    to = [each for each in way(peers["sshd"], str(key)) if each != "BatchMode=yes"]
    to.remove("-o")
    with Person(line(*to, "echo in"), home.environment) as person:
        person.sees("locked: ")
        person.types("wrong\r")
        person.sees("locked: ")
        person.types("the words\r")
        person.sees("in\r\n")
        assert person.leaves() == 0
    assert b"no passphrase was given" in home.run(*to, "true", status=255).stderr
    with ssh_agent(tmp_path / "agent") as socket:
        variables = home.environment | {"SSH_AUTH_SOCK": socket, "SSH_ASKPASS_REQUIRE": "never"}
        added = [program("ssh-add"), "-q", keys.path("ecdsa256"), keys.path("ed25519")]
        subprocess.run(added, env=variables, check=True, capture_output=True)
        with_agent = {"SSH_AUTH_SOCK": socket}
        for name in ("sshd", "ours"):
            bare = [each for each in way(peers[name], "/nowhere") if each not in {"-i", "/nowhere"}]
            listed = home.run("-A", *bare, "ssh-add -L", variables=with_agent).stdout.decode()
            assert listed.split()[1] == (keys.folder / "ecdsa256.pub").read_text().split()[1]
            none = home.run("-a", *bare, "ssh-add -L", variables=with_agent, status=2)
            assert none.stdout == b""
        only = ["-o", "IdentitiesOnly=yes", "-v", *way(peers["sshd"], keys.path("ed25519") + ".pub")]
        home.run(*only, "true", variables=with_agent)
        refused = home.run("-o", "IdentityAgent=none", *only, "true", status=255, variables=with_agent)
        assert b"Tried: nothing" in refused.stderr


class Asking:
    """Asks two things, then lets in who knows both."""

    method = "keyboard-interactive"

    async def authenticate(self, attempt: Attempt) -> Allow | Deny | Prompt:
        """Ask, then decide."""
        assert isinstance(attempt.credential, InteractiveCredential)
        responses = attempt.credential.responses
        if responses is None:
            return Prompt((("Word: ", False), ("Letter: ", True)), "", "Two things are asked.")
        return Allow() if responses == ("secret", "a") else Deny()


class Secret:
    """A password."""

    method = "password"

    async def authenticate(self, attempt: Attempt) -> Allow | Deny:
        """Compare."""
        assert isinstance(attempt.credential, PasswordCredential)
        return Allow() if attempt.credential.password == "secret" else Deny()


async def greet(session: dunnart.Session) -> int:
    """What the server does."""
    await session.write(b"in as " + session.user.encode() + b"\n")
    return 0


def test_passwords_and_questions(home: Home, tmp_path: Path) -> None:
    """On the terminal, by $SSH_ASKPASS, and not at all; a server that asks two things at once."""
    asker = tmp_path / "asker"
    asker.write_text("#!/bin/sh\necho secret\n")
    asker.chmod(0o700)

    def work(port: int) -> None:
        to = ["-F", "none", "-p", str(port), "-o", "StrictHostKeyChecking=accept-new", "ann@127.0.0.1"]
        with Person(line("-o", "PreferredAuthentications=password", *to), home.environment) as person:
            person.sees("Password of ann@127.0.0.1: ")
            person.types("wrong\r")
            person.sees("denied. Password")
            person.types("secret\r")
            person.sees("in as ann")
            assert person.leaves() == 0
        assert b"secret" not in person.seen
        with Person(line("-o", "PasswordAuthentication=no", *to), home.environment) as person:
            person.sees("Two things are asked.")
            person.sees("Word: ")
            person.types("secret\r")
            person.sees("Letter: ")
            person.types("a\r")
            person.sees("in as ann")
            assert person.leaves() == 0
        variables = {"SSH_ASKPASS": str(asker), "SSH_ASKPASS_REQUIRE": "force"}
        assert home.run("-o", "KbdInteractiveAuthentication=no", *to, variables=variables).stdout == b"in as ann\n"
        assert b"The server offers: " in home.run("-o", "BatchMode=yes", *to, status=255, variables=variables).stderr
        known = {"DROPBEAR_PASSWORD": "secret"}
        done = home.run("-y", "-p", str(port), "bob@127.0.0.1", "x", variables=known, command="dbclient")
        assert done.stdout == b"in as bob\n"

    async def test() -> None:
        host_key = PrivateKey.generate("ed25519")
        server = dunnart.Server(
            greet, exec=greet, listen="127.0.0.1:0", authenticators=[Asking(), Secret()], host_keys=[host_key]
        )
        async with server:
            await asyncio.to_thread(work, server.addresses[0].port)

    asyncio.run(test())
