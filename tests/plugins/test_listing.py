"""`dunnart plugins`: what there is, what uses it, where it comes from, what is broken."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dunnart.plugins import BUILT_IN
from dunnart.tools import main as tool
from tests.plugins.packages import Site

SHELL = """\
from dataclasses import dataclass
from dunnart.server.plugins import plugin

@dataclass
class Options:
    greeting: str = "Hello"
    colours: bool = True

@plugin(Options)
class Shell:
    def __init__(self, context): raise RuntimeError("listing makes nothing")
"""


@pytest.fixture(autouse=True)
def _packages(site: Site) -> None:
    site.add("acme", SHELL, {
        "dunnart.shells": {"greeter": "acme:Shell", "gone": "acme:Gone", "os": "acme:Shell"},
        "dunnart.subsystems": {"both": "acme:Shell"},
    }, "1.2")  # fmt: skip
    site.add(
        "broken", "1 / 0", {"dunnart.audit_sinks": {"zero": "broken:x"}, "dunnart.subsystems": {"both": "broken:x"}}
    )


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    assert tool.main(["plugins", "--json", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {(each["group"].removeprefix("dunnart."), each["name"], each["distribution"]): each for each in found}
    assert len(rows) == len(found)
    return rows


def test_all_that_is_installed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys)
    for group, names in BUILT_IN.items():
        for name, target in names.items():
            row = rows[group.removeprefix("dunnart."), name, "dunnart"]
            assert (row["target"], row["broken"]) == (target, None)
            assert Path(row["file"]) == Path(sys.modules[target.partition(":")[0]].__file__ or "")
    assert rows["shells", "greeter", "acme"] == {
        "group": "dunnart.shells", "name": "greeter", "target": "acme:Shell", "distribution": "acme", "version": "1.2",
        "file": str(site.folder / "acme.py"), "options": ["colours", "greeting"], "enabled": [], "broken": None,
    }  # fmt: skip
    used = {key[:2]: row["enabled"] for key, row in rows.items() if row["enabled"]}
    assert used == {
        ("authenticators", "authorized-keys"): ["authorized_keys"], ("shells", "os"): ["shell"],
        ("authenticators", "one-time-password"): ["password"], ("execs", "os"): ["exec"],
        ("subsystems", "sftp"): ["subsystem.sftp"],
        ("channel_types", "direct-tcpip"): ["channel_types.direct-tcpip"],
        ("channel_types", "direct-streamlocal"): ["channel_types.direct-streamlocal@openssh.com"],
        ("global_requests", "streamlocal-forward"): [
            "global_requests.streamlocal-forward@openssh.com", "global_requests.cancel-streamlocal-forward@openssh.com",
        ],
        ("session_requests", "agent-forwarding"): ["session_requests.auth-agent-req@openssh.com"],
        ("global_requests", "tcpip-forward"): [
            "global_requests.tcpip-forward", "global_requests.cancel-tcpip-forward",
        ],
        ("forwarding_policies", "allow-list"): ["forwarding"],
    }  # fmt: skip


def test_what_the_configuration_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "dunnart.toml"
    file.write_text('shell = "greeter"\nauthenticators = ["password-file"]\n[subsystem]\na = "acme:Shell"\nb = "nix"\n')
    flags = ("--subsystem", "c=acme:Shell", "--exec", "off", "--forwards", "off")
    rows = listed(capsys, "--config", str(file), *flags)
    assert {key: row["enabled"] for key, row in rows.items() if row["enabled"]} == {
        ("shells", "greeter", "acme"): ["shell"],
        ("authenticators", "password-file", "dunnart"): ["authenticators"],
        ("subsystems", "acme:Shell", ""): ["subsystem.a", "subsystem.c"],
        ("subsystems", "nix", ""): ["subsystem.b"],
        ("subsystems", "sftp", "dunnart"): ["subsystem.sftp"],
    }
    assert rows["subsystems", "acme:Shell", ""]["broken"] is None
    assert rows["subsystems", "nix", ""]["broken"].startswith("no installed package has a subsystem of this name; ")


def test_what_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys, "--shell", "gone", "--audit", "zero", "--subsystem", "x=both")
    broken = {key: row["broken"] for key, row in rows.items() if row["broken"]}
    twice = (
        "the name is advertised by acme:Shell of acme 1.2 and broken:x of broken 1.0; write module:attr to choose one"
    )
    assert broken == {
        ("shells", "gone", "acme"): "cannot be imported: AttributeError: module 'acme' has no attribute 'Gone'",
        ("shells", "os", "acme"): "the name is a built-in plug-in's; write module:attr to use this one",
        ("audit_sinks", "zero", "broken"): "cannot be imported: ZeroDivisionError: division by zero",
        ("subsystems", "both", "acme"): twice,
        ("subsystems", "both", "broken"): twice,
    }
    assert rows["shells", "gone", "acme"]["enabled"] == ["shell"]


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["plugins", "--shell", "greeter", "--subsystem", "x=acme:Shell", "--forwards", "off"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["GROUP", "NAME", "USED", "BY", "FROM"]
    cells = [line.split() for line in lines]
    assert ["shells", "greeter", "shell", "acme:Shell", "of", "acme", "1.2"] in cells
    assert ["shells", "os", "-", "acme:Shell", "of", "acme", "1.2", "BROKEN:"] in [each[:8] for each in cells]
    assert ["subsystems", "acme:Shell", "subsystem.x", "acme:Shell"] in cells
    column = head.index("FROM")
    assert all(line[column:].startswith(cell[3]) for line, cell in zip(lines, cells, strict=True))
    assert tool.main(["plugins"]) == 0
    assert capsys.readouterr().out.index("FROM") < 80  # requests have long names, and are left out


def test_a_configuration_that_cannot_be_read_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["plugins", "--shell", "a b"]) == 2
    assert capsys.readouterr().err == "dunnart plugins: --shell: 'a b' is neither a plug-in's name nor module:attr\n"


def test_a_check_of_the_configuration_looks_at_plug_ins(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["config", "--check", "--shell", "status"]) == 0
    assert tool.main(["config", "--check", "--shell", "gone"]) == 2
    assert tool.main(["config", "--check", "--shell", "greeter", "--plugin", "greeter.colours=x"]) == 2
    assert tool.main(["config", "--check", "--shell", "greeter"]) == 2  # which cannot be made
    one, two, three = capsys.readouterr().err.splitlines()
    assert one.startswith("dunnart config: --shell: gone: acme:Gone of acme 1.2 cannot be imported: AttributeError: ")
    assert two == "dunnart config: --plugin greeter.colours: 'x' is not true or false"
    assert three.endswith("acme:Shell of acme 1.2 cannot be made: RuntimeError: listing makes nothing")
    assert tool.main(["config", "--shell", "gone"]) == 0  # what is printed needs no plug-in
