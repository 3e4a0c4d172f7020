"""`dunnart totp`: makes a secret for an app that shows codes, as the plug-in totp reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dunnart.errors import ConfigError

_SECRET_BYTES = 20  # as RFC 4226 recommends
_DESCRIPTION = (
    "Make a secret for an app that shows codes, and print the address (otpauth:) that the app takes; as a QR code: "
    "dunnart totp | qrencode -t ansiutf8. The server's plug-in totp reads the file."
)


def run(arguments: Sequence[str]) -> int:
    """Make one.

    Raises:
        ConfigError: the file is there already, or cannot be written.
    """
    from dunnart.daemon.flags import Parser

    parser = Parser(prog="dunnart totp", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--file", metavar="FILE", help="Where to; default: ~/.google_authenticator.")
    parser.add_argument("--issuer", metavar="NAME", help="What the app shows; default: this machine's name.")
    parser.add_argument("--user", metavar="NAME", help="Whose the app shows it to be; default: who runs this.")
    parser.add_argument("--replace", action="store_true", help="Replace a secret that is there.")
    flags = parser.parse_args(arguments)
    try:
        from pyotp import TOTP
    except ImportError as error:
        raise ConfigError(f'pyotp cannot be loaded: pip install "dunnart[totp]" ({error})') from error
    import socket
    from base64 import b32encode

    from dunnart.daemon.ways_in import this_user

    user = flags.user or this_user().name
    path = flags.file or os.path.expanduser("~/.google_authenticator")
    secret = b32encode(os.urandom(_SECRET_BYTES)).decode()
    write_secret(path, secret, replace=flags.replace)
    print(TOTP(secret).provisioning_uri(name=user, issuer_name=flags.issuer or socket.gethostname()))
    return 0


def write_secret(path: str, secret: str, *, replace: bool = False) -> None:
    """Write the file of a secret.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    text = f'{secret}\n" RATE_LIMIT 3 30\n" DISALLOW_REUSE\n" TOTP_AUTH\n'
    made = f"{path}.new" if replace else path
    try:
        if replace and os.path.lexists(made):
            os.unlink(made)
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        if replace:
            os.replace(made, path)
    except FileExistsError as error:
        raise ConfigError("is there already; --replace makes a new secret", path=path) from error
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", path=path) from error
