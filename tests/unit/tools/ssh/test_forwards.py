"""What -L, -R, -D and -W mean."""

from __future__ import annotations

import pytest

from dunnart.errors import ConfigError
from dunnart.tools.ssh import forwards
from dunnart.tools.ssh.forwards import Forward


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8080:web:80", Forward(("localhost", 8080), ("web", 80))),
        ("0:web:80", Forward(("localhost", 0), ("web", 80))),
        ("*:8080:web:80", Forward(("", 8080), ("web", 80))),
        (":8080:web:80", Forward(("", 8080), ("web", 80))),
        ("10.0.0.1:8080:[2001:db8::1]:80", Forward(("10.0.0.1", 8080), ("2001:db8::1", 80))),
        ("[::1]:8080:web:80", Forward(("::1", 8080), ("web", 80))),
        ("8080:/run/x.sock", Forward(("localhost", 8080), "/run/x.sock")),
        ("h:8080:/run/x.sock", Forward(("h", 8080), "/run/x.sock")),
        ("/a:web:80", Forward("/a", ("web", 80))),
        (r"/a\:b:/c", Forward("/a:b", "/c")),
        ("8080 web:80", Forward(("localhost", 8080), ("web", 80))),
        ("/a /b", Forward("/a", "/b")),
    ],
)
def test_what_is_meant(text: str, found: Forward) -> None:
    assert forwards.local(text.split(" "), everywhere=False) == found
    assert forwards.remote(text.split(" ")) == found
    if isinstance(found.listen, tuple) and found.listen[0] == "localhost":
        assert forwards.local(text.split(" "), everywhere=True) == found._replace(listen=("", found.listen[1]))


@pytest.mark.parametrize("text", ["8080", "x:h:1", "1:h", "1:h:0", "1:h:70000", "a:b:1:h:2", "1::2", "[::1:1:h:2", ""])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match="localforward"):
        forwards.local([text], everywhere=False)


def test_others() -> None:
    assert forwards.dynamic(["1080"], everywhere=False) == Forward(("localhost", 1080), None)
    assert forwards.dynamic(["[::1]:1080"], everywhere=True) == Forward(("::1", 1080), None)
    assert forwards.endpoint("h:22") == ("h", 22)
    assert forwards.endpoint("/x") == "/x"
    for wrong in ("/x", "1:2:3"):
        with pytest.raises(ConfigError):
            forwards.dynamic([wrong], everywhere=False)
