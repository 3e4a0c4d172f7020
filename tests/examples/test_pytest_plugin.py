"""The pytest plug-in, used as its how-to page says."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, modules
from tests.interop.support import program

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.timeout(180)
PLUGIN = "dunnart.testing.pytest_plugin"
PAGE = ROOT / "docs" / "how-to" / "test-with-pytest.md"
STRICT = ("-Werror", "--strict-markers", "--strict-config", "-p", "no:randomly", "-p", "no:cacheprovider", "-vv")


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A pytest that finds the plug-in as it does where dunnart was installed, and no other one of this name."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    info = pytester.mkdir("dunnart-0.dist-info")
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: dunnart\nVersion: 0\n")
    lines = "".join(f"{name} = {target}\n" for name, target in entries.items())
    info.joinpath("entry_points.txt").write_text(f"[pytest11]\n{lines}")
    files = (path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*.py"))
    info.joinpath("RECORD").write_text("".join(f"{path},,\n" for path in files))
    monkeypatch.setenv("PYTHONPATH", f"{pytester.path}:{ROOT / 'src'}")
    program("ssh")
    return pytester


def outcome(run: pytest.Pytester, **counts: int) -> pytest.RunResult:
    """Run the tests, which must end so, and leave no thread and no warning."""
    done = run.runpytest_subprocess(*STRICT)
    done.assert_outcomes(**counts)
    return done


def test_the_page_does_what_it_says(run: pytest.Pytester) -> None:
    [code] = modules(PAGE).values()
    run.makepyfile(test_page=code)
    outcome(run, passed=code.count("def test_"))


def test_nothing_is_loaded_before_the_fixture_is_used() -> None:
    code = f"import sys; import pytest; before = set(sys.modules); import {PLUGIN}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"dunnart", "dunnart.testing", PLUGIN}


def test_arguments_come_from_markers_and_the_options_fixture(run: pytest.Pytester) -> None:
    run.makepyfile("""
        import pytest

        pytestmark = pytest.mark.ssh_server(banner="module", users={"module": ""})

        @pytest.fixture
        def ssh_server_options():
            return {"banner": "fixture", "commands": {"x": "y"}}

        @pytest.mark.ssh_server(banner="class")
        class Test:
            @pytest.mark.ssh_server(users={"function": ""})
            def test_function(self, ssh_server):
                assert ssh_server.user == "function"
                assert ssh_server._options["banner"] == "class"
                assert ssh_server.commands == {"x": "y"}

            def test_class(self, ssh_server):
                assert ssh_server.user == "module"
    """)
    outcome(run, passed=2)


def test_the_marker_takes_no_arguments_without_a_name(run: pytest.Pytester) -> None:
    run.makepyfile("""
        import pytest

        @pytest.mark.ssh_server({"ada": "secret"})
        def test_it(ssh_server):
            pass
    """)
    outcome(run, errors=1).stdout.fnmatch_lines(["*UsageError: the marker ssh_server takes arguments by name only*"])


def test_what_a_handler_raises_fails_the_test(run: pytest.Pytester) -> None:
    run.makepyfile("""
        import subprocess

        async def handler(session):
            assert session.command == "what is wanted"

        def test_it(ssh_server):
            ssh_server.handler = handler
            assert subprocess.run(ssh_server.command("something else")).returncode == 1

        def test_two(ssh_server):
            ssh_server.handler = handler
            for command in ("one", "other"):
                assert subprocess.run(ssh_server.command(command)).returncode == 1

        def test_expected(ssh_server):
            ssh_server.handler = handler
            assert subprocess.run(ssh_server.command("something else")).returncode == 1
            [failure] = ssh_server.failures
            assert isinstance(failure, AssertionError)
            ssh_server.failures.clear()
    """)
    done = outcome(run, passed=3, errors=2)
    done.stdout.fnmatch_lines(["*AssertionError: assert 'something else' == 'what is wanted'*"])
    done.stdout.fnmatch_lines(["*what the handlers of ssh_server raised (2 sub-exceptions)*"])


def test_nothing_is_left_behind(run: pytest.Pytester) -> None:
    run.makepyfile("""
        import gc
        import os
        import socket
        import subprocess
        import threading

        import pytest

        def left():
            gc.collect()
            return threading.active_count(), len(os.listdir("/dev/fd"))

        @pytest.fixture
        def nothing_left():
            before = left()
            yield
            assert left() == before

        @pytest.mark.parametrize("times", range(3))
        def test_it(nothing_left, make_ssh_server, times):
            server, other = make_ssh_server(), make_ssh_server()
            subprocess.run(server.command("true"), check=True)
            with server.faults.hang("session"), socket.create_connection((other.host, other.port)):
                stuck = subprocess.Popen(server.command("cat"), stdin=subprocess.PIPE)
                server.wait_until(lambda: len(server.sessions) == 2)
            server.faults.drop()
            with stuck:
                assert stuck.wait(20) == 255
    """)
    outcome(run, passed=3)


def test_coroutine_tests_of_any_runner(run: pytest.Pytester) -> None:
    run.makeconftest("""
        import asyncio, inspect, pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_pyfunc_call(pyfuncitem):
            if inspect.iscoroutinefunction(pyfuncitem.obj):
                asyncio.run(pyfuncitem.obj(pyfuncitem.funcargs["ssh_server"]), debug=True)
                return True
    """)
    run.makepyfile("""
        import asyncio

        async def test_it(ssh_server):
            ssh_server.faults.slow(delay_seconds=0.01)
            client = await asyncio.create_subprocess_exec(*ssh_server.command("echo hello"), stdout=-1)
            assert await client.communicate() == (b"hello\\n", None)
            await asyncio.to_thread(ssh_server.wait_until, lambda: not ssh_server.connections)
            ssh_server.stop()
    """)
    outcome(run, passed=1)


def test_it_works_in_every_worker(run: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    run.makepyfile("""
        import subprocess

        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(ssh_server, number):
            assert subprocess.check_output(ssh_server.command(f"echo {number}"), text=True) == f"{number}\\n"
    """)
    run.runpytest_subprocess(*STRICT, "-n2").assert_outcomes(passed=4)


def test_the_marker_and_the_fixtures_are_listed(run: pytest.Pytester) -> None:
    run.runpytest_subprocess("--markers").stdout.fnmatch_lines(["@pytest.mark.ssh_server(users=..., *"])
    done = run.runpytest_subprocess("--fixtures")
    done.stdout.fnmatch_lines(["ssh_server *pytest_plugin.py*", "*A real SSH server on a free loopback port*"])


def test_it_can_be_switched_off(run: pytest.Pytester) -> None:
    run.makepyfile("def test_it(ssh_server): pass")
    done = run.runpytest_subprocess("-p", "no:dunnart")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*fixture 'ssh_server' not found*"])


def test_the_module_is_where_the_entry_point_says() -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert entries == {"dunnart": PLUGIN}
    assert Path(ROOT / "src" / PLUGIN.replace(".", "/")).with_suffix(".py").exists()
