"""The program itself: commands, exit statuses, one line for an error, and nothing loaded that is not needed."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dunnart.daemon.config import OPTIONS
from dunnart.daemon.flags import parse, parser
from dunnart.daemon.source import flag_of
from dunnart.tools import main as tool
from dunnart.tools.main import main


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dunnart", *arguments], capture_output=True, text=True, check=False)


def test_help_lists_the_commands_that_there_are() -> None:
    listed = set(re.findall(r"^  (\S+) {2,}", tool.USAGE, re.MULTILINE))
    assert listed == {*tool._COMMANDS, *tool._PROGRAMS, "version"}
    for module in tool._PROGRAMS.values():
        assert callable(importlib.import_module(f"dunnart.tools.{module}").run)


def test_the_configuration_is_printed_as_toml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--listen", "127.0.0.1:7"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed["listen"] == ["127.0.0.1:7"]
    assert set(printed) == set(OPTIONS)


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dunnart.toml"
    path.write_text('log_level = "debug"\n')
    assert main(["config", "--check", "--config", str(path)]) == 0
    assert capsys.readouterr().out == "the configuration is good\n"
    path.write_text('\nlog_level = "loud"\n')
    assert main(["config", "--check", "--config", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"dunnart config: {path}:2: log_level: 'loud' is none of error, warning, info, debug\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (
            'authenticators = ["password-file"]\n[plugin.password-file]\nfile = "/nowhere/passwords"\n',
            ":3: plugin.password-file.file: cannot be read: No such file or directory",
        ),
        ('audit = ["log"]\n[plugin.log]\nfile = "/nowhere/audit"\n', "/nowhere/audit"),
        ('subsystem.sftp = "sftp"\n[plugin.sftp]\naccount = "no such user"\n', ":3: plugin.sftp.account: "),
        ('host_key = ["/nowhere/key"]\n', "/nowhere/key: host_key: cannot be read"),
        ('methods = ["gssapi-with-mic,password"]\n', "no authenticator is there for gssapi-with-mic"),
        (
            'authenticators = ["one-time-password"]\nmethods = ["password,publickey"]\n',
            "no authenticator is there for publickey",
        ),
        (
            'authenticators = ["one-time-password"]\ntrusted_user_ca_keys = ["/nowhere"]\n',
            ":2: trusted_user_ca_keys: it is not asked: authenticators names no authorized-keys",
        ),
        (
            'trusted_user_ca_keys = ["/nowhere"]\n',
            ":1: trusted_user_ca_keys: /nowhere: cannot be read: No such file or directory\n",
        ),
    ],
)
def test_check_finds_what_is_missing(text: str, wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dunnart.toml"
    path.write_text(text)
    assert main(["config", "--check", "--config", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert wrong in captured.err


@pytest.mark.parametrize("command", ["serve", "config"])
def test_help_has_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    # Not by `main`, which would keep `ssl` out of this process.
    made = parser(f"dunnart {command}", "What it does.")
    with pytest.raises(SystemExit) as ended:
        parse(["--help"], made)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert [name for name in OPTIONS if flag_of(name) not in printed] == []
    assert "%h is the user's home" in " ".join(printed.split())


@pytest.mark.parametrize("arguments", [["serve", "--lisen", "x"], ["serve", "--listen", "x"], ["frob"]])
def test_a_wrong_command_line_is_one_line_and_status_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("dunnart")
    assert done.stderr.count("\n") == 1


def test_what_cannot_be_used_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = run("serve", "--host-key", str(tmp_path / "missing"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"dunnart serve: {tmp_path}/missing: host_key: cannot be read: No such file or directory\n"
    )  # fmt: skip


def test_version_and_help() -> None:
    assert run("version").stdout.startswith("dunnart ")
    assert "serve" in run("--help").stdout
    assert run("serve", "--help").stdout.startswith("usage: dunnart serve [--config FILE] [FLAG ...]\n")
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage" in done.stderr
    done = run("serv")
    assert (done.returncode, done.stderr) == (2, "dunnart: no command 'serv'; did you mean serve?\n")


PROBE = """\
import sys
from dataclasses import replace
import dunnart.tools.main as tool

def probe(*arguments):
    # Only here, since `main` has shut ssl out by now.
    from dunnart.daemon import preparing, running, serve

    def run(config, *_):
        preparing.prepare(replace(config, state_folder=sys.argv[1]))
        print(*[name for name, module in sys.modules.items() if module is not None])
        return 0

    serve.run = run
    return load(*arguments)

load, tool._load = tool._load, probe
sys.exit(tool.main(["serve"]))
"""


def test_serve_loads_neither_tls_nor_what_flags_need(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROBE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"asyncio", "dunnart.daemon.running"} <= loaded
    unwanted = {"ssl", "_ssl", "argparse", "tomllib", "hashlib", "hmac", "random", "secrets", "tempfile", "difflib"}
    assert loaded & unwanted == set()


def test_config_shows_what_a_login_would_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dunnart.toml"
    path.write_text(
        "[[match]]\nuser = 'ann'\naddress = '192.0.2.0/24'\nmethods = ['publickey,password']\n"
        "[[match]]\nlocal_port = 22\nlocal_address = '2001:db8::1'\nshell = 'off'\n"
    )
    given = ["config", "--config", str(path), "--user"]
    for more, expected in [
        (["ann", "--address=192.0.2.7"], (["publickey,password"], "os")),
        (["ann", "--address", "198.51.100.7"], ([], "os")),
        (["bob", "--address", "192.0.2.7"], ([], "os")),
        (["bob", "--local-port", "22", "--local-address", "2001:db8::1"], ([], "off")),
    ]:
        assert main([*given, *more]) == 0
        shown = tomllib.loads(capsys.readouterr().out)
        assert (shown["methods"], shown["shell"]) == expected
        assert "match" not in shown


@pytest.mark.parametrize(
    "flags", [["--user"], ["--address", "192.0.2.7"], ["--user", "a", "--address", "x"], ["--user=a", "--local-port=x"]]
)
def test_config_says_what_is_no_login(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", *flags]) == 2
    assert capsys.readouterr().err.startswith("dunnart config: --")
