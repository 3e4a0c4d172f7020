"""`dunnart config import`: another server's configuration as dunnart's."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dunnart.daemon.config import ServeConfig

    Importer = Callable[[Sequence[str]], tuple[ServeConfig, Sequence[str]]]

_IMPORTERS = {
    "sshd_config": "dunnart.daemon.sshd_config.importing:imported",
    "dropbear-flags": "dunnart.tools.dropbear:imported",
}
"""By name what reads the arguments; it gives the configuration, and what a person should know of it."""
USAGE = """\
usage: dunnart config import sshd_config [FILE]
       dunnart config import dropbear-flags -- FLAGS

Prints, as TOML, the configuration that sshd's file or Dropbear's flags mean; what is as it is by default is left out.
"""


def run(arguments: Sequence[str]) -> int:
    """Print the configuration, with notes as comments; gives the exit status, 0.

    Raises:
        ConfigError: there is no such importer, or what it reads is wrong.
    """
    from dunnart.daemon.writing import to_toml

    if not arguments or arguments[0] in {"-h", "--help"}:
        print(USAGE, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in _IMPORTERS:
        raise ConfigError(f"import: nothing reads {name!r}; there are {', '.join(_IMPORTERS)}")
    module, _, function = _IMPORTERS[name].partition(":")
    importer: Importer = getattr(import_module(module), function)
    config, notes = importer(rest[1:] if rest[:1] == ["--"] else rest)
    print("".join(f"# {note}\n" for note in notes) + to_toml(config, changed=True), end="")
    return 0
