"""Imports go one way, the protocol is pure, and importing is cheap."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import dunnart

ROOT = Path(__file__).parents[2]
PACKAGE = Path(dunnart.__path__[0])

# What `dunnart.protocol` must get handed in: time, randomness, I/O.
# fmt: off
IMPURE_MODULES = frozenset({
    "asyncio", "concurrent", "contextvars", "io", "logging", "multiprocessing", "os", "pathlib", "queue", "random",
    "sched", "secrets", "select", "selectors", "shutil", "signal", "socket", "socketserver", "ssl", "subprocess", "sys",
    "tempfile", "threading", "time", "uuid",
})
# fmt: on
IMPURE_BUILTINS = frozenset(("open", "print", "input", "__import__", "eval", "exec"))

# What costs megabytes or tens of milliseconds, and no part of a running server needs on import.
# fmt: off
HEAVY = frozenset({
    "argparse", "bcrypt", "cryptography.x509", "email", "hashlib", "hmac", "http", "importlib.metadata",
    "multiprocessing", "pydoc", "random", "secrets", "ssl", "subprocess", "tempfile", "tomllib", "typing_extensions",
    "urllib.request", "uuid",
})
# fmt: on
SANS_IO = ("wire", "crypto", "keys", "protocol", "sftp", "scp", "line_editor")


def impurities(source: str) -> list[str]:
    """List what a module may not do, as `line: what`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
                found.append(f"{node.lineno}: {name}()")
                continue
            case _:
                continue
        found += [f"{node.lineno}: import {name}" for name in modules if name.split(".")[0] in IMPURE_MODULES]
    return found


def modules_loaded(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter and tell which modules it has loaded beyond the interpreter's own."""
    program = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); before = set(sys.modules); {statement}"
    program += "; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-c", program], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_imports_go_one_way() -> None:
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=ROOT,
        env={"PYTHONPATH": str(PACKAGE.parent), "COLUMNS": "200", "PYTHONIOENCODING": "utf-8", "HOME": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_dataclasses_are_the_light_ones() -> None:
    heavy = [path for path in PACKAGE.rglob("*.py") if path.name != "records.py" and any(
        isinstance(node, ast.ImportFrom) and node.module == "dataclasses"
        and "dataclass" in {alias.name for alias in node.names}
        for node in ast.walk(ast.parse(path.read_bytes()))
    )]  # fmt: skip
    assert not heavy, "dunnart.records has a dataclass that takes a fifth of the memory and time"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("protocol/**/*.py")), ids=lambda path: path.stem)
def test_protocol_takes_time_and_randomness_from_outside(path: Path) -> None:
    assert impurities(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os", ["1: import os"]),
        ("\nfrom os import urandom", ["2: import os"]),
        ("def f():\n    import time as clock", ["2: import time"]),
        ("import asyncio.events", ["1: import asyncio.events"]),
        ("open('x')", ["1: open()"]),
        ("from dunnart.wire import time\nimport struct\nstate.open()", []),
    ],
)
def test_the_purity_check_sees(source: str, found: list[str]) -> None:
    assert impurities(source) == found


def test_importing_dunnart_is_cheap() -> None:
    loaded = modules_loaded("import dunnart")
    assert "dunnart" in loaded
    assert loaded & (HEAVY | {"asyncio", "cryptography", "logging", "socket"}) == set()


def test_a_server_loads_nothing_heavy_of_its_own_accord() -> None:
    statement = (
        "import sys; sys.modules['ssl'] = None; import dunnart.daemon.preparing, dunnart.daemon.running; "
        "from dunnart.server.processes import loading, worker; "
        "import importlib; any(map(importlib.import_module, loading.LOADED))"
    )
    loaded = modules_loaded(statement)
    assert loaded >= {"asyncio", "dunnart.server.processes.worker"}
    # asyncio loads subprocess; hashlib, which brings another libcrypto, is what somebody may be tempted by
    assert loaded & (HEAVY | {"_hashlib"}) <= {"subprocess", "ssl"}


@pytest.mark.parametrize("name", [name for name in SANS_IO if (PACKAGE / name / "__init__.py").exists()])
def test_the_core_loads_nothing_heavy(name: str) -> None:
    modules = [f"dunnart.{name}"]
    modules += [found.name for found in pkgutil.walk_packages([str(PACKAGE / name)], f"dunnart.{name}.")]
    loaded = modules_loaded("import " + ", ".join(modules))
    assert set(modules) <= loaded
    assert loaded & (HEAVY | {"asyncio", "socket"}) == set()


@pytest.mark.parametrize(
    ("forwards", "wanted"),
    [
        (("off",), set()),
        (("agent",), {"agent_forwarding", "allow_list", "private_folder"}),
        (("tcp",), {"allow_list", "direct_tcpip", "tcpip_forward"}),
    ],
)
def test_what_is_not_forwarded_is_not_loaded(forwards: tuple[str, ...], wanted: set[str]) -> None:
    statement = "from dunnart.daemon.config import ServeConfig; from dunnart.daemon.plugins import make"
    loaded = modules_loaded(f"{statement}; make(ServeConfig(forwards={forwards!r}), 'me', None)")
    all_of_them = {
        "agent_forwarding", "allow_list", "direct_streamlocal", "direct_tcpip", "private_folder",
        "streamlocal_forward", "tcpip_forward", "unix_process", "unix_sockets", "x11_forwarding",
    }  # fmt: skip
    assert {name for name in all_of_them if f"dunnart.plugins.{name}" in loaded} == wanted
