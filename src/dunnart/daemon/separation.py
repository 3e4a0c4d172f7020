"""Privilege separation: root stays with the monitor, and who meets the network is another process, and confined.

    monitor (root)         reads keys, decides on logins, starts users' programs
     ├ workers             the protocol, as a user who owns nothing: `dunnart.daemon.confinement`
     └ fork server (root)  forks what serves files, as the users who have logged in

Workers and fork server are there while they are needed.

Not root: there is one process, and the same code.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from dunnart.daemon.unmade import could_make_folder, is_missing
from dunnart.errors import ConfigError

if TYPE_CHECKING:
    from dunnart.daemon.config import ServeConfig
    from dunnart.daemon.confinement import Confinement
    from dunnart.server.processes.separation import Separation

USERS = ("dunnart", "sshd", "nobody")
"""Who is looked for where the configuration names nobody."""


def separate(config: ServeConfig) -> Separation | None:
    """Begin to start the workers, as root. None: not root.

    Raises:
        ConfigError: there is nobody to run workers as, or no folder for them.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    from dunnart.server.processes.separation import Separation

    leave_folder_of_others()
    arguments = (confinement(config).arguments(),)
    separation = Separation("dunnart.daemon.confinement:run_worker", arguments, config.rest_on_idle)
    try:
        separation.begin(config.workers)
    except OSError as error:
        separation.close()
        raise ConfigError(f"cannot be started: {error.strerror}", key="workers") from error
    return separation


def leave_folder_of_others() -> None:
    """Look for no modules in the folder that this was started in, if others can put some there.

    `python -m dunnart` looks there first, and so would root each time that workers are started. The program itself may
    be there.
    """
    for folder in [each for each in sys.path if _is_of_others(each)]:
        from logging import getLogger

        sys.path.remove(folder)
        message = "no module is looked for in %s, where this was started: others can write to it"
        getLogger("dunnart.daemon").warning(message, os.path.abspath(folder))


def _is_of_others(folder: str) -> bool:
    try:
        found, here = os.stat(folder or "."), os.stat(".")
    except OSError:
        return False
    others = found.st_uid != 0 or found.st_mode & 0o022
    return bool(others) and os.path.samestat(found, here) and not os.path.isdir(os.path.join(folder, "dunnart"))


def confinement(config: ServeConfig, *, make: bool = True) -> Confinement:
    """Say how workers are confined; the folder that they are locked in is made, unless `make` says not to.

    Raises:
        ConfigError: there is nobody to run workers as, or no folder for them.
    """
    from dunnart.daemon.confinement import Confinement

    uid, gid, user = worker_user(config.unprivileged_user)
    if config.sandbox:
        prepare_empty_folder(config.empty_folder, make=make)
    return Confinement(user, uid, gid, config.empty_folder if config.sandbox else "")


def worker_user(name: str) -> tuple[int, int, str]:
    """Give number, group and name of the user whom workers run as; `name`: as the configuration has it.

    Raises:
        ConfigError: there is nobody, or it is root.
    """
    import pwd

    for each in (name,) if name else USERS:
        try:
            found = pwd.getpwnam(each)
        except KeyError:
            continue
        if found.pw_uid == 0 or found.pw_gid == 0:
            raise ConfigError(f"{each} is root, or in root's group", key="unprivileged_user")
        return found.pw_uid, found.pw_gid, each
    raise ConfigError(f"there is no user {name or ', '.join(USERS)}", key="unprivileged_user")


def prepare_empty_folder(folder: str, *, make: bool = True) -> None:
    """Make the folder that workers are locked in, or see that nobody else can put something into the one there is.

    Args:
        folder: its path.
        make: else one that is missing is left so, but it is seen that it could be made.

    Raises:
        ConfigError: it cannot be made, or is not empty and root's alone.
    """
    try:
        if make:
            os.makedirs(folder, mode=0o755, exist_ok=True)
        elif is_missing(folder):
            could_make_folder(folder)
            return
        found = os.stat(folder)
        filled = os.listdir(folder)
    except OSError as error:
        raise ConfigError(f"cannot be used: {error.strerror}", path=folder, key="empty_folder") from error
    if found.st_uid != 0 or stat.S_IMODE(found.st_mode) & 0o022:
        raise ConfigError("others than root can write to it", path=folder, key="empty_folder")
    if filled:
        raise ConfigError("is not empty", path=folder, key="empty_folder")
