"""A process that talks to PAM for one login, which may block and crash as PAM's modules do.

It reads and writes lines of JSON on descriptor 3, the server being at the other end:

    server                                   here
    {"service", "user", "address", …}  ──►   pam_start, pam_authenticate unless the user is "proved", pam_acct_mgmt,
                                             pam_chauthtok if it must, pam_setcred, pam_open_session
                                       ◄──   {"prompts": [[text, echo], …], "text": …}    as often as a module asks
    {"answers": [text, …]}             ──►
                                       ◄──   {"allowed": true, "environment": {…}, "text": …, "welcome": …}
                                             or false and "detail"; "welcome" is what the session's modules have said
    the end of the connection          ──►   pam_close_session, pam_setcred(delete), pam_end

Once the user is in, it forks his programs, as descriptor 4 orders (`dunnart.runtime.forked`): so they have the limits,
the groups, the audit's number, the keyring and the control group that modules have set for this process.

PAM is reached through ctypes: the wrappers on PyPI either know conversations of one password only, or give no
environment and no way to change an expired password. The numbers are those of Linux-PAM.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket

from dunnart.runtime import forked

CONTROL, ORDERS = 3, 4
LINE_BYTES = 256 * 1024
_SUCCESS, _BUFFER_ERROR, _NEW_AUTHTOK_REQUIRED, _CONVERSATION_ERROR = 0, 5, 12, 19
_USER, _TTY, _REMOTE_HOST = 2, 3, 4
_ECHO_OFF, _ECHO_ON, _ERROR, _INFO = 1, 2, 3, 4
_NO_EMPTY_PASSWORD, _CHANGE_EXPIRED = 1, 0x20
_ESTABLISH, _DELETE = 2, 4
_UMASK = 0o022
_CONNECTION, _INFORMATION = "SSH_CONNECTION", "SSH_AUTH_INFO"


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.POINTER(_Message)), ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)  # fmt: skip


class _Conversation(ctypes.Structure):
    _fields_ = (("function", _FUNCTION), ("data", ctypes.c_void_p))


class Gone(Exception):
    """The server has closed its end."""


class Control:
    """The lines to and from the server."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb")

    def read(self) -> dict[str, object]:
        """Read a line; `Gone` at the end."""
        line = self._file.readline(LINE_BYTES)
        if not line.endswith(b"\n"):
            raise Gone
        found: dict[str, object] = json.loads(line)
        return found

    def write(self, **what: object) -> None:
        """Write a line."""
        try:
            self._sock.sendall(json.dumps(what).encode() + b"\n")
        except OSError as error:
            raise Gone from error


class Pam:
    """One transaction of PAM.

    Args:
        order: what the server wants; see the module.
        control: leads to the server.
    """

    def __init__(self, order: dict[str, object], control: Control) -> None:
        self._control = control
        self._proved = order["proved"] is True
        self.must_change = False
        self._password = order["password"]
        self._one_password = self._password is not None
        self._said: list[str] = []
        self.text = ""
        self._gone = False
        self._pam = ctypes.CDLL("libpam.so.0")
        self._pam.pam_strerror.restype = ctypes.c_char_p
        self._pam.pam_getenvlist.restype = ctypes.POINTER(ctypes.c_char_p)
        self._libc = ctypes.CDLL(None)
        self._libc.calloc.restype = self._libc.strdup.restype = ctypes.c_void_p
        self._libc.calloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
        self._flags = 0 if order["empty"] else _NO_EMPTY_PASSWORD
        self._user = str(order["user"])
        self._conversation = _Conversation(_FUNCTION(self._converse), None)
        self._handle = ctypes.c_void_p()
        self.opened = self.credentials = False
        status = self._start(str(order["service"]).encode(), str(order["folder"]))
        if status != _SUCCESS:
            raise OSError(f"pam_start: {status}")
        self._set(_REMOTE_HOST, str(order["address"]))
        self._pam.pam_putenv(self._handle, f"{_CONNECTION}={order['ends']}".encode())
        self._set(_TTY, "ssh")

    def _start(self, service: bytes, folder: str) -> int:
        arguments = (service, self._user.encode(), ctypes.byref(self._conversation))
        handle = ctypes.byref(self._handle)
        if not folder:
            return int(self._pam.pam_start(*arguments, handle))
        return int(self._pam.pam_start_confdir(*arguments, folder.encode(), handle))

    def _set(self, item: int, value: str) -> None:
        if value:
            self._pam.pam_set_item(self._handle, item, ctypes.c_char_p(value.encode()))

    def _converse(self, count: int, messages: object, responses: object, _data: object) -> int:
        """Ask the user, through the server. Called by PAM's modules; nothing may be raised from here."""
        try:
            return self._ask(count, messages, responses)
        except Gone:
            self._gone = True
            return _CONVERSATION_ERROR
        except Exception:  # noqa: BLE001 - C would not see it, and take what stands there
            return _CONVERSATION_ERROR

    def _ask(self, count: int, messages: object, responses: object) -> int:
        asked: list[tuple[int, str, bool]] = []
        for number in range(count):
            message = messages[number].contents  # type: ignore[index] # a pointer to pointers
            text = (message.text or b"").decode(errors="replace")
            if message.style in {_ERROR, _INFO}:
                self._said.append(text)
            elif message.style in {_ECHO_OFF, _ECHO_ON}:
                asked.append((number, text, message.style == _ECHO_ON))
            else:
                return _CONVERSATION_ERROR
        answers = self._answers([(text, echo) for _, text, echo in asked]) if asked else []
        if answers is None or len(answers) != len(asked) or any("\0" in each for each in answers):
            return _CONVERSATION_ERROR
        made = self._libc.calloc(count, ctypes.sizeof(_Response))
        if not made:
            return _BUFFER_ERROR
        row = ctypes.cast(made, ctypes.POINTER(_Response))
        for (number, _, _), answer in zip(asked, answers, strict=True):
            row[number].text = self._libc.strdup(answer.encode(errors="surrogateescape"))
        responses[0] = made  # type: ignore[index] # a pointer
        return _SUCCESS

    def _answers(self, prompts: list[tuple[str, bool]]) -> list[str] | None:
        if self._password is not None:  # given once, for one question that is not shown
            password, self._password = self._password, None
            return [str(password)] if len(prompts) == 1 and not prompts[0][1] else None
        if self._one_password or self._proved:
            return None
        self._control.write(prompts=prompts, text=self.said())
        answers = self._control.read()["answers"]
        return [str(each) for each in answers] if isinstance(answers, list) else None

    def said(self) -> str:
        """What modules have told the user since it was asked for last."""
        said, self._said = self._said, []
        return "\n".join(said)

    def log_in(self) -> str:
        """Do all that a login wants; gives why it may not be, or "" if it may."""
        if not self._proved and (status := self._pam.pam_authenticate(self._handle, self._flags)) != _SUCCESS:
            return self._failed("pam_authenticate", status)
        status = self._pam.pam_acct_mgmt(self._handle, self._flags)
        if status == _NEW_AUTHTOK_REQUIRED and self._proved:
            self.must_change = True
        elif status == _NEW_AUTHTOK_REQUIRED:
            if self._one_password:
                return "the password has to be changed, which keyboard-interactive allows"
            status = self._pam.pam_chauthtok(self._handle, _CHANGE_EXPIRED)
            if status != _SUCCESS:
                return self._failed("pam_chauthtok", status)
        elif status != _SUCCESS:
            return self._failed("pam_acct_mgmt", status)
        if self._item(_USER) != self._user:
            return "a module has changed the user's name"
        self.text = self.said()
        self._take_groups()  # which pam_group adds to
        status = self._pam.pam_setcred(self._handle, _ESTABLISH)
        if status != _SUCCESS and not self._proved:  # without a password there may be none to be had
            return self._failed("pam_setcred", status)
        self.credentials = status == _SUCCESS
        status = self._pam.pam_open_session(self._handle, 0)
        if status != _SUCCESS:
            return self._failed("pam_open_session", status)
        self.opened = True
        return ""

    def _take_groups(self) -> None:
        import pwd

        with contextlib.suppress(KeyError, PermissionError):  # nobody whom programs could be, or only who we are
            os.initgroups(self._user, pwd.getpwnam(self._user).pw_gid)

    def _failed(self, where: str, status: int) -> str:
        if self._gone:
            raise Gone
        text = self._pam.pam_strerror(self._handle, status) or b""
        return f"{where}: {text.decode(errors='replace')}"

    def _item(self, item: int) -> str:
        value = ctypes.c_void_p()
        self._pam.pam_get_item(self._handle, item, ctypes.byref(value))
        found = ctypes.cast(value, ctypes.c_char_p).value
        return "" if found is None else found.decode(errors="replace")

    def environment(self) -> dict[str, str]:
        """What modules have set for the user's programs."""
        found: dict[str, str] = {}
        listed = self._pam.pam_getenvlist(self._handle)
        number = 0
        while listed and listed[number] is not None:
            name, equals, value = listed[number].decode(errors="surrogateescape").partition("=")
            if equals and not name.startswith((_CONNECTION, _INFORMATION)):  # for modules, and not for programs
                found[name] = value
            number += 1
        return found

    def end(self) -> None:
        """Close the session, and let go of everything."""
        status = _SUCCESS
        if self.opened:
            status = self._pam.pam_close_session(self._handle, 0)
        if self.credentials:
            status = self._pam.pam_setcred(self._handle, _DELETE)
        self._pam.pam_end(self._handle, status)


def main(_arguments: list[str]) -> int:
    """Serve one login and the session that follows."""
    os.umask(os.umask(_UMASK) | _UMASK)  # which pam_umask may change
    os.environ.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    control = Control(socket.socket(fileno=CONTROL))
    try:
        order = control.read()
        pam = Pam(order, control)
    except Gone:
        return 0
    except OSError as error:
        control.write(allowed=False, detail=str(error), text="")
        return 1
    try:
        detail = pam.log_in()
        rest = pam.said()
        text, welcome = ("\n".join(filter(None, (pam.text, rest))), "") if detail else (pam.text, rest)
        control.write(
            allowed=not detail, detail=detail, text=text, welcome=welcome, environment=pam.environment(),
            change=pam.must_change,
        )  # fmt: skip
        if not detail:
            forked.main(ORDERS, 0, until=CONTROL)
    except Gone:
        pass
    finally:
        pam.end()
    return 0
