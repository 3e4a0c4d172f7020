"""A git server: clone from it and push to it, with the real git at both ends.

    git init --bare repositories/project.git
    python examples/git_server.py --root repositories --keys ~/.ssh/id_ed25519.pub
    git clone ssh://127.0.0.1:2222/project.git

Only git's own three commands run, without a shell, and only on repositories below that folder.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
from pathlib import Path

import dunnart
from dunnart.server import Command

_SERVICES = {"git-upload-pack", "git-receive-pack", "git-upload-archive"}
_FAILED = 128  # git's own status for what it calls fatal


class GitServer:
    """Serves the repositories below a folder.

    Args:
        root: the folder.
        git: the program's path.
    """

    def __init__(self, root: Path, git: str) -> None:
        self._root = root.resolve(strict=True)
        self._git = git

    def begin(self, session: dunnart.RawSession) -> bool:
        """Hand a session over to git."""
        try:
            command = self._command(session)
        except ValueError as error:
            session.refuse(f"fatal: {error}", status=_FAILED)
        else:
            session.run(command)
        return True

    def _command(self, session: dunnart.RawSession) -> Command:
        words = shlex.split(session.command or "")
        if len(words) != 2 or words[0] not in _SERVICES:
            raise ValueError("this server knows git's commands only")
        # Links are followed before the path is judged, so that none leads out.
        repository = Path(self._root, words[1].lstrip("/")).resolve()
        if not repository.is_relative_to(self._root) or not (repository / "HEAD").is_file():
            raise ValueError(f"there is no repository {words[1]!r}")
        environment = {"PATH": os.defpath, "HOME": str(self._root), **session.environment}
        service = words[0].removeprefix("git-")
        return Command(("git", service, str(repository)), self._git, environment, directory=str(self._root))


def main() -> None:
    """Serve the owners of some keys, until control-C."""
    parser = argparse.ArgumentParser(description="A git server.")
    parser.add_argument("--port", type=int, default=2222)
    parser.add_argument("--root", default="repositories", help="the folder with the repositories")
    parser.add_argument("--keys", default="~/.ssh/id_ed25519.pub", help="who may come in: public keys, one a line")
    arguments = parser.parse_args()
    try:
        keys = dunnart.PublicKeys(Path(arguments.keys).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"no public keys: {error}; name a file of them with --keys")
    Path(arguments.root).mkdir(exist_ok=True)
    git = shutil.which("git")
    if git is None:
        parser.error("git is not installed")
    server = dunnart.Server(
        exec=GitServer(Path(arguments.root), git),
        host_keys=[dunnart.PrivateKey.load_or_generate("example_host_key")],
        authenticators=[keys],
        accept_env=["GIT_PROTOCOL"],  # by which git's two sides agree on their protocol's version
        listen=f"127.0.0.1:{arguments.port}",
    )
    print(f"git clone ssh://127.0.0.1:{arguments.port}/NAME.git")
    server.run()


if __name__ == "__main__":
    main()
