from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dunnart.daemon import dropbear_flags
from dunnart.daemon.loading import load
from dunnart.tools.main import main


def test_dropbears_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(dropbear_flags, "FOLDER", str(tmp_path))
    flags = ["-Rej", "-as", "-W9", "-K", "30", "-T", "3", "-b", "/nowhere", "-p", "[::1]:2222", "-P", "/run/x", "-c"]
    assert main(["config", "import", "dropbear-flags", "--", *flags, "a 'b'"]) == 0
    printed = capsys.readouterr().out
    notes = [line for line in printed.splitlines() if line.startswith("#")]
    assert [note[:5] for note in notes] == ["# -b:", "# -e:", "# -R:"]
    assert set(tomllib.loads(printed)) == {
        "listen", "authenticators", "account", "password", "permit_root_login", "accept_env", "permit_user_rc",
        "print_last_log",
        "force_command", "forwards", "channel_types", "plugin", "background", "pid_file", "log_to", "limits",
    }  # fmt: skip
    assert tomllib.loads(printed)["limits"] == {
        "max_auth_tries": 3, "keepalive_seconds": 30.0, "window_bytes": 1024, "channel_packet_bytes": 1024,
    }  # fmt: skip
    path = tmp_path / "dunnart.toml"
    path.write_text(printed)
    given = dropbear_flags.translate([*flags, "a 'b'"], root=True, environment={})
    assert load(str(path)) == load(None, given.options)


def test_sshd_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sshd_config").write_text("HostKey /etc/ssh/key\nIPQoS ef\nMatch User ann\n    PermitTTY no\n")
    assert main(["config", "import", "sshd_config", str(tmp_path / "sshd_config")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"# {tmp_path}/sshd_config line 2: IPQoS: ignored: ")
    assert tomllib.loads(printed)["match"] == [{"user": ["ann"], "permit_tty": False}]
    (tmp_path / "dunnart.toml").write_text(printed)
    assert load(str(tmp_path / "dunnart.toml")).host_key == ("/etc/ssh/key",)


def test_what_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in [
        (["frob"], "nothing reads 'frob'; there are sshd_config, dropbear-flags"),
        (["sshd_config", "/no/such"], "/no/such: No such file"),
        (["dropbear-flags", "--", "-T", "x"], "-T: bad maxauthtries"),
        ([], "usage: "),
    ]:
        assert main(["config", "import", *arguments]) == 2
        assert said in capsys.readouterr().err
