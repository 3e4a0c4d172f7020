"""The pytest plug-in: the fixture `ssh_server`, a real SSH server for tests of programs that use one.

pytest loads this with every run in whose environment dunnart is installed, so it loads nothing of dunnart before a
fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dunnart.testing.ssh_server import SshServer

_MARKER = "ssh_server(users=..., commands=..., handler=..., ...): what the fixture ssh_server is made with"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def ssh_server_options() -> dict[str, Any]:
    """What `ssh_server` is made with unless a marker says otherwise: a conftest.py may give a fixture of this name."""
    return {}


@pytest.fixture
def make_ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., SshServer]]:
    """Make and start servers: `make_ssh_server(users={"ada": "secret"})`, arguments as `SshServer`'s."""
    from dunnart.testing.ssh_server import SshServer

    servers: list[SshServer] = []

    def make(**options: Any) -> SshServer:  # noqa: ANN401 - SshServer says what
        server = SshServer(**{"folder": tmp_path_factory.mktemp("ssh_server"), **options})
        servers.append(server)
        return server.start()

    yield make
    failures: list[Exception] = []
    for server in reversed(servers):
        try:
            server.close()
        except RuntimeError as error:
            failures.append(error)
        failures += server.failures
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("what the handlers of ssh_server raised", failures)


@pytest.fixture
def ssh_server(
    request: pytest.FixtureRequest,
    make_ssh_server: Callable[..., SshServer],
    ssh_server_options: dict[str, Any],
) -> SshServer:
    """A real SSH server on a free loopback port, made with the arguments of the marker `ssh_server`."""
    options = dict(ssh_server_options)
    for marker in reversed(list(request.node.iter_markers("ssh_server"))):
        if marker.args:
            raise pytest.UsageError(f"the marker ssh_server takes arguments by name only, not {marker.args!r}")
        options |= marker.kwargs
    return make_ssh_server(**options)
