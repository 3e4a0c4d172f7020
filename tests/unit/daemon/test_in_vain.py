"""A configuration that can be served but hardly means that is warned of."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dunnart.daemon import plugins
from dunnart.daemon.loading import load

NOTHING = "nobody may have anything forwarded: "
NO_RULE, NO_PLUGIN = f"{NOTHING}no rule of plugin.allow-list", f"{NOTHING}forwarding names no plug-in"
RULES = "[plugin.allow-list]\nrules = "


def warned(folder: Path, text: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    path = folder / "dunnart.toml"
    path.write_text(text)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="dunnart.daemon"):
        plugins.make(load(str(path), {}), "somebody", None)
    return [each.getMessage() for each in caplog.records]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("forwarding = []", NO_PLUGIN),
        (f"{RULES}[]", NO_RULE),
        (f'forwards = ["tcp"]\n{RULES}["agent", "connect-unix *"]', f"forwards names tcp, but {NO_RULE}"),
        (f'forwards = ["tcp"]\n{RULES}["connect *:*", "!connect *:*", "!listen *:*"]', NO_RULE),
        (f'forwards = ["unix", "agent"]\n{RULES}["listen-unix /a", "!listen-unix *", "agent", "! agent"]', NO_RULE),
        (f'{RULES}["!connect db:5432"]\nusers = {{a = "!agent", "*" = ""}}', NO_RULE),
        (f'{RULES}[]\nlog_level = "debug"\n[[match]]\nuser = "a"\npermit_tty = false', NO_RULE),
    ],
)
def test_nobody_may_have_anything_forwarded(
    text: str, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = warned(tmp_path, text, caplog)
    assert why in line


@pytest.mark.parametrize(
    "text",
    [
        "", 'forwards = ["off"]\nforwarding = []', 'forwards = ["off"]',
        f'{RULES}["connect db:5432"]', f'{RULES}["connect *:*", "!connect 10.0.0.0/8:*", "!connect *:22"]',
        f'forwards = ["agent"]\n{RULES}[]\nusers = {{a = "agent"}}',
        'forwarding = []\n[[match]]\nuser = "a"\nforwarding = ["allow-list"]',
        'forwards = ["off"]\n[[match]]\nuser = "a"\nforwards = ["agent"]',
        '[[match]]\nuser = "a"\nforwarding = []',
    ],
)  # fmt: skip
def test_somebody_may(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert warned(tmp_path, text, caplog) == []


def test_nobody_hears_of_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = warned(tmp_path, '[plugin.sftp]\nevents = "all"\n', caplog)
    assert line.startswith("plugin.sftp.events does nothing, for audit names nobody to tell")
