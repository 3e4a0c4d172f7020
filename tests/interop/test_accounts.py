"""Real accounts of this system: PAM has the last word on logins by key, its session has the limits; and passwords.

The service files are in a folder of their own; an account is made for these tests, and removed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.interop.clients import OpenSsh
from tests.interop.conftest import Serve
from tests.interop.pam_services import needs_pam
from tests.interop.pam_services import program as script
from tests.interop.support import (
    SECONDS,
    Keys,
    Served,
    answering,
    eventually,
    free_port,
    program,
    terminal_of,
    write_key,
)

pytestmark = needs_pam
PASSWORD = "correct horse"
SERVICE = """\
auth required pam_unix.so nodelay
account required pam_unix.so
account required pam_exec.so quiet {folder}/account
session required pam_umask.so umask=0027
session required pam_limits.so conf={folder}/limits
session required pam_env.so conffile=/dev/null envfile={folder}/variables readenv=1
session required pam_exec.so quiet {folder}/session
session optional pam_echo.so Mind the gap, %u.
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A user who may log in by a password, and has a home that others may look into."""
    name = f"dn{uuid4().hex[:8]}"
    home = Path(f"/var/tmp/{name}")
    command = [program("useradd"), "--home-dir", str(home), "--create-home", "--skel", "/nonexistent"]
    subprocess.run([*command, "--shell", "/bin/sh", "--no-log-init", name], check=True, capture_output=True)
    try:
        subprocess.run([program("chpasswd")], input=f"{name}:{PASSWORD}\n", text=True, check=True)
        yield name
    finally:
        subprocess.run([program("userdel"), "--remove", "--force", name], check=True, capture_output=True)


@pytest.fixture
def services(tmp_path: Path) -> Path:
    """A folder with a service."""
    folder = tmp_path / "pam"
    folder.mkdir()
    (folder / "limits").write_text("* hard nofile 321\n")
    (folder / "variables").write_text("COLOUR=blue\n")
    script(folder, "exit 0", "account")
    script(folder, f'echo "$PAM_TYPE $PAM_USER $PAM_RHOST" >>{folder}/told', "session")
    (folder / "service").write_text(SERVICE.format(folder=folder))
    return folder


def started(start: Serve, services: Path, authenticators: str, *more: str) -> Served:
    table = f'service = "service"\nfolder = "{services}"\n'
    path = services / "dunnart.toml"
    lines = [f"authenticators = {authenticators}", *more]
    lines += [f"[plugin.{name}]\n{table}" for name in ("pam", "pam-password") if f'"{name}"' in "".join(lines)]
    path.write_text("\n".join(lines))
    return start("--config", str(path))


def log_in(
    server: Served, user: str, command: str, *options: str, password: str = "", typed: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    line, env = OpenSsh().command(server, "-o", f"User={user}", *options, terminal=typed is not None)
    if password:
        env |= answering(server, {"assword": password})
    line += [command] if command else []
    return subprocess.run(line, env=env, input=typed or b"", capture_output=True, timeout=SECONDS, check=False)


LOOK = r"""
env | sort; umask; pwd; ulimit -a; echo $0; nice; cat /proc/self/oom_score_adj
grep -E '^(Uid|Gid|Groups|Sig[IBC]|Cap|NoNew|Seccomp)' /proc/self/status
ls -l /proc/self/fd | sed 's/.*[0-9] -> /-> /'
ps -o pid=,pgid=,sid=,tpgid=,tty=,args= -p $$ | awk '{print ($1==$2),($1==$3),($2==$4),$5,$6}'
test -t 0 && stty -a
exit 5
"""


@contextmanager
def sshd(folder: Path, use_pam: str) -> Iterator[int]:
    """The real one, on a port of its own, for as long as the block lasts."""
    write_key(folder / "host", "ed25519")
    port = free_port()
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nStrictModes no\n"
        f"UsePAM {use_pam}\nPidFile none\nAcceptEnv LANG LC_*\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen([program("sshd"), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        assert eventually(lambda: b"listening" in (folder / "sshd.log").read_bytes())
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("use_pam", ["no", "yes"])
def test_a_login_is_what_it_is_with_sshd(start: Serve, tmp_path: Path, keys: Keys, user: str, use_pam: str) -> None:
    folder = Path(f"/var/tmp/{user}/.ssh")
    folder.mkdir(exist_ok=True)
    (folder / "authorized_keys").write_text(keys.authorized.read_text())  # sshd looks with the user's rights
    server = start("--account", "pam" if use_pam == "yes" else "off")
    with sshd(tmp_path, use_pam) as port:
        for terminal in (False, True):
            line, env = OpenSsh().command(server, "-o", f"User={user}", terminal=terminal)
            theirs = [
                f"Port={port}" if word.startswith("Port=")
                else "UserKnownHostsFile=/dev/null" if word.startswith("UserKnownHostsFile=")
                else "StrictHostKeyChecking=no" if word.startswith("StrictHostKeyChecking=")
                else word for word in line
            ]  # fmt: skip
            shown = []
            for command in (line, theirs):
                done = subprocess.run(
                    [*command, LOOK], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                    timeout=SECONDS,
                )  # fmt: skip
                assert done.returncode == 5, done.stderr
                ports = re.sub(r"(?m)^(SSH_C\w+)=127\.0\.0\.1 \d+ (127\.0\.0\.1 )?\d+", r"\1", done.stdout)
                shown.append(re.sub(r"\[\d+\]|/proc/\d+|pts/\d+", "", ports) + done.stderr)
            assert shown[0] == shown[1]


def by_password(method: str) -> tuple[str, ...]:
    preferred = f"PreferredAuthentications={method}"
    return ("-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1", "-o", preferred, "-o", "PubkeyAuthentication=no")


def test_pam_has_the_last_word_on_keys(start: Serve, services: Path, user: str) -> None:
    server = started(start, services, '["authorized-keys"]', 'account = "pam"')
    home = Path(f"/var/tmp/{user}")
    (home / ".ssh").mkdir(exist_ok=True)
    rc = home / ".ssh/rc"
    rc.write_text("echo rc as $(id -un) in $(pwd)\n")
    try:
        done = log_in(server, user, "ulimit -n; umask; echo $COLOUR $MAIL; id -un; id -Gn; exit 4")
        lines = [f"rc as {user} in {home}", "321", "0027", "blue", user, user]
        assert done.stdout.decode().splitlines() == lines, server.log
        assert done.returncode == 4
    finally:
        rc.unlink()
    told = services / "told"
    both = [f"open_session {user} 127.0.0.1", f"close_session {user} 127.0.0.1"]
    assert eventually(lambda: told.read_text().splitlines() == both)
    # On a terminal what modules say is shown, and the terminal is the user's.
    done = log_in(server, user, "", typed=b"exit\n")
    assert done.stdout.count(f"Mind the gap, {user}.\r\n".encode()) == 1, done.stdout

    def on_a_terminal() -> str:
        return log_in(server, user, "stat -c '%U %G %a' $(tty)", typed=b"").stdout.decode()

    assert terminal_of(on_a_terminal) == f"{user} tty 620"
    done = log_in(server, user, "kill -KILL $$", typed=b"")
    assert done.returncode == 255  # a signal has no status
    # Files are served within the session too, and who hangs up is followed by what still runs.
    line, env = OpenSsh().command(server, "-o", f"User={user}")
    get = [program("sftp"), "-q", *line[1:-2], "127.0.0.1:/proc/self/limits", str(services / "limits-of-sftp")]
    subprocess.run(get, env=env, capture_output=True, timeout=SECONDS, check=True)
    assert re.search(r"Max open files +321 +321", (services / "limits-of-sftp").read_text())
    with subprocess.Popen(
        [*line, "trap 'echo hung up >hup' HUP; echo ready; sleep 60 & wait"],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        client.stdout.readline()
        client.kill()
    assert eventually((home / "hup").exists)
    script(services, "exit 1", "account")
    done = log_in(server, user, "echo in")
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"Permission denied" in done.stderr
    assert server.logs("pam_acct_mgmt: ")
    assert "Accepted publickey" not in server.log[server.log.index("pam_acct_mgmt: ") :]


def test_an_expired_password_is_changed_on_a_terminal(start: Serve, services: Path, user: str) -> None:
    server = started(start, services, '["authorized-keys"]', 'account = "pam"')
    subprocess.run([program("chage"), "--lastday", "0", user], check=True)
    try:
        done = log_in(server, user, "echo in")
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"on a terminal only" in done.stderr
        line, env = OpenSsh().command(server, "-o", f"User={user}", terminal=True)
        with subprocess.Popen([*line, "echo in"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            shown = b""
            while not shown.rstrip().endswith(b"assword:") and (byte := client.stdout.read(1)):  # passwd asks
                shown += byte
            client.kill()
        assert b"You must change your password now and log in again!\r\n" in shown
        assert f"Changing password for {user}.\r\n".encode() in shown
        assert b"in\r\n" not in shown.splitlines(keepends=True)
    finally:
        subprocess.run([program("chage"), "--lastday", "20000", user], check=True)


def test_who_is_locked_stays_out_where_shadow_has_the_last_word(start: Serve, user: str) -> None:
    server = start("--account", "shadow")
    assert log_in(server, user, "echo in").stdout == b"in\n"
    subprocess.run([program("usermod"), "--lock", user], check=True)
    try:
        done = log_in(server, user, "echo in")
        assert (done.returncode, done.stdout) == (255, b"")
        assert server.logs("the account is locked")
    finally:
        subprocess.run([program("usermod"), "--unlock", user], check=True)


@pytest.mark.parametrize(
    ("authenticators", "methods"),
    [('"pam", "pam-password"', ["keyboard-interactive", "password"]), ('"shadow"', ["password"])],
    ids=["pam", "shadow"],
)
def test_passwords_of_a_real_account(
    start: Serve, services: Path, user: str, authenticators: str, methods: list[str]
) -> None:
    server = started(start, services, f'["authorized-keys", {authenticators}]')
    for method in methods:
        done = log_in(server, user, "id -un; ulimit -n", *by_password(method), password=PASSWORD)
        name, limit = done.stdout.decode().split()
        assert (name, done.returncode) == (user, 0), done.stderr.decode() + server.log
        assert (limit == "321") == ("pam" in authenticators)
        done = log_in(server, user, "id -un", *by_password(method), password="wrong")
        assert (done.returncode, done.stdout) == (255, b"")
    subprocess.run([program("usermod"), "--expiredate", "2001-01-01", user], check=True)
    try:
        for method in methods:
            done = log_in(server, user, "id -un", *by_password(method), password=PASSWORD)
            assert (done.returncode, done.stdout) == (255, b"")
    finally:
        subprocess.run([program("usermod"), "--expiredate", "", user], check=True)
