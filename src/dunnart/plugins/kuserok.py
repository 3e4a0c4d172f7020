"""Whether a Kerberos principal may log in as a user of this system: krb5_kuserok of the Kerberos library.

That is: the user's ~/.k5login names the principal, or there is no such file and the rules `auth_to_local` of krb5.conf
make this user of it. There is no binding for it in python-gssapi, so it is called through ctypes.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes.util import find_library


@functools.cache
def _library() -> ctypes.CDLL:
    found = ctypes.CDLL(find_library("krb5") or "libkrb5.so.3")
    pointer = ctypes.c_void_p
    found.krb5_init_context.argtypes = [ctypes.POINTER(pointer)]
    found.krb5_parse_name.argtypes = [pointer, ctypes.c_char_p, ctypes.POINTER(pointer)]
    found.krb5_kuserok.argtypes = [pointer, pointer, ctypes.c_char_p]
    for name in ("krb5_init_context", "krb5_parse_name", "krb5_kuserok"):
        getattr(found, name).restype = ctypes.c_int
    found.krb5_free_principal.argtypes = [pointer, pointer]
    found.krb5_free_context.argtypes = [pointer]
    for name in ("krb5_free_principal", "krb5_free_context"):
        getattr(found, name).restype = None
    return found


def may_log_in(principal: str, user: str) -> bool:
    """Ask. Reads files, so it may block.

    Args:
        principal: as Kerberos writes it, "ann@EXAMPLE.ORG".
        user: the login name.

    Raises:
        OSError: there is no Kerberos library, or it cannot be set up.
    """
    library = _library()
    context, parsed = ctypes.c_void_p(), ctypes.c_void_p()
    if library.krb5_init_context(ctypes.byref(context)):
        raise OSError("the Kerberos library cannot be set up: is krb5.conf readable?")
    try:
        if library.krb5_parse_name(context, principal.encode(), ctypes.byref(parsed)):
            return False
        try:
            return bool(library.krb5_kuserok(context, parsed, user.encode()))
        finally:
            library.krb5_free_principal(context, parsed)
    finally:
        library.krb5_free_context(context)
