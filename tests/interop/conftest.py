"""The servers that the clients meet: one with the default configuration for all, and any other for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.interop.peers import Peers
from tests.interop.ssh_programs import Home
from tests.interop.support import MIB, Blob, Keys, Served, make_blob, serve

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def blob(tmp_path_factory: pytest.TempPathFactory) -> Blob:
    return make_blob(tmp_path_factory.mktemp("data") / "blob", 64 * MIB)


@pytest.fixture(scope="session")
def server(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The default configuration, with a password beside the keys."""
    running = serve(tmp_path_factory.mktemp("server"), keys, "--password", "one-time")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def _file_server(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = serve(tmp_path_factory.mktemp("files"), keys)
    yield running
    running.stop()


@pytest.fixture
def files(_file_server: Served) -> Iterator[Served]:
    """One more, for programs that move files; what it logs of a test holds no error."""
    before = len(_file_server.log)
    yield _file_server
    log = _file_server.log[before:]
    assert "Traceback" not in log, log[-4000:]
    assert " error/" not in log, log[-4000:]


@pytest.fixture(scope="session")
def peers(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """A server of each kind."""
    made = Peers(keys, tmp_path_factory.mktemp)
    yield made
    made.stop()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Somebody's, where our client runs."""
    return Home(tmp_path)


Serve = Callable[..., Served]


@pytest.fixture
def start(keys: Keys, tmp_path: Path) -> Iterator[Serve]:
    """Start a server with further flags, for this test."""
    running: list[Served] = []

    def begin(
        *flags: str, authorized: str | None = None, shell: str = "", variables: Mapping[str, str] | None = None
    ) -> Served:
        folder = tmp_path / f"server{len(running)}"
        folder.mkdir()
        running.append(serve(folder, keys, *flags, authorized=authorized, shell=shell, variables=variables))
        return running[-1]

    yield begin
    for each in running:
        each.stop()
