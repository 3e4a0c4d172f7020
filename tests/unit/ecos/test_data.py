"""What `dunnart.ecos` is made from is checked when it is made, by the argument's name."""

from __future__ import annotations

import dataclasses
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dunnart import ecos
from dunnart.ecos import DropbearData
from dunnart.errors import ConfigError
from dunnart.keys import PrivateKey
from dunnart.protocol.limits import Limits

KEY = PrivateKey.generate("ed25519")
RSA = PrivateKey.generate("rsa", 2048).openssh()
# fmt: off
DSS = dsa.generate_private_key(1024).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
# fmt: on


def data(**changes: Any) -> DropbearData:
    """The least that works, with these changes."""
    least: dict[str, Any] = {
        "private_host_keys": [KEY], "authenticate_password": lambda *_: False, "connected": lambda *_: None,
        "address": "127.0.0.1", "port": 0,
    }  # fmt: skip
    return DropbearData(**(least | changes))


def test_the_defaults_are_those_of_the_original() -> None:
    made = DropbearData(private_host_keys=[KEY], authenticate_password=lambda *_: False, connected=lambda *_: None)
    assert (made.address, made.port, made.max_packet_bytes, made.max_public_keys) == ("*", 22, 1024, 8)
    assert (made.support_stderr, made.local_port, made.stderr_port) == (False, 0, 0)
    assert (made.thread_priority, made.stack_size) == (0, 0)
    assert (made.accept_delay_seconds, made.retry_delay_seconds) == (0, 0.1)
    assert (made.logger, made.accept_connection, made.get_public_keys) == (None, None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.port = 23  # type: ignore[misc] # that is the point


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"private_host_keys": ()}, "private_host_keys"),
        ({"private_host_keys": KEY}, "private_host_keys"),
        ({"private_host_keys": "host_key"}, "private_host_keys"),
        ({"private_host_keys": [3]}, "private_host_keys"),
        ({"private_host_keys": [b"nonsense"]}, "private_host_keys"),
        ({"private_host_keys": ["/nonexistent/host_key"]}, "private_host_keys"),
        ({"private_host_keys": [KEY], "algorithms": "fips"}, "private_host_keys"),
        ({"rsa_private_host_key": "text"}, "rsa_private_host_key"),
        ({"rsa_private_host_key": b"nonsense"}, "rsa_private_host_key"),
        ({"rsa_private_host_key": KEY.openssh()}, "rsa_private_host_key"),
        ({"dss_private_host_key": DSS}, "dss_private_host_key"),
        ({"dss_private_host_key": RSA, "algorithms": "legacy"}, "dss_private_host_key"),
        ({"connected": None}, "connected"),
        ({"connected": 3}, "connected"),
        ({"accept_connection": 3}, "accept_connection"),
        ({"authenticate_password": None}, "authenticate_password"),
        ({"authenticate_password": "secret"}, "authenticate_password"),
        ({"get_public_keys": ["key"]}, "get_public_keys"),
        ({"free_public_keys": lambda _: None}, "free_public_keys"),
        ({"logger": "log"}, "logger"),
        ({"address": "::1::"}, "address"),
        ({"address": ""}, "address"),
        ({"address": None}, "address"),
        ({"port": -1}, "port"),
        ({"port": 65536}, "port"),
        ({"port": "22"}, "port"),
        ({"port": True}, "port"),
        ({"support_stderr": 1}, "support_stderr"),
        ({"max_packet_bytes": 1023}, "max_packet_bytes"),
        ({"max_packet_bytes": 1 << 18}, "max_packet_bytes"),
        ({"max_public_keys": 0}, "max_public_keys"),
        ({"local_port": 65536}, "local_port"),
        ({"stderr_port": 2200}, "stderr_port"),
        ({"thread_priority": 20}, "thread_priority"),
        ({"thread_priority": -1}, "thread_priority"),
        ({"stack_size": 1024}, "stack_size"),
        ({"stack_size": 1.5}, "stack_size"),
        ({"accept_delay_seconds": -1}, "accept_delay_seconds"),
        ({"retry_delay_seconds": "soon"}, "retry_delay_seconds"),
        ({"callback_seconds": None}, "callback_seconds"),
        ({"algorithms": "best"}, "algorithms"),
        ({"algorithms": 3}, "algorithms"),
    ],
)
def test_what_cannot_work_is_refused_by_name(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        data(**changes)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}: ")


def test_a_key_that_is_refused_is_not_shown() -> None:
    secret = KEY.openssh()
    with pytest.raises(ConfigError) as caught:
        data(private_host_keys=secret)
    assert "PRIVATE KEY" not in str(caught.value)
    assert "PRIVATE KEY" not in repr(data(private_host_keys=[secret], rsa_private_host_key=RSA))


def test_host_keys_of_every_kind() -> None:
    made = data(
        rsa_private_host_key=RSA, dss_private_host_key=DSS, private_host_keys=[KEY.openssh()], algorithms="legacy"
    )
    assert [key.public.key_type for key in made.options["host_keys"]] == ["ssh-rsa", "ssh-dss", "ssh-ed25519"]


def test_a_host_key_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "host_key"
    file.write_bytes(KEY.openssh())
    file.chmod(0o600)
    assert [key.public for key in data(private_host_keys=[file, str(file)]).options["host_keys"]] == [KEY.public] * 2


@pytest.mark.parametrize("size", [1024, 32 * 1024, 255 * 1024])
def test_the_packet_size_is_that_of_channels(size: int) -> None:
    limits = data(max_packet_bytes=size).options["limits"]
    assert limits.channel_packet_bytes == size
    assert limits.sessions == 1
    assert limits.packet_bytes >= Limits().packet_bytes_before_login
    assert limits.window_bytes == max(64 * 1024, 32 * size)


def test_init_wants_its_description() -> None:
    with pytest.raises(ConfigError, match=r"^data: is no DropbearData$"):
        ecos.init({"port": 22})  # type: ignore[arg-type] # that is the point


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("key", ["port", "local_port", "stderr_port"])
def test_a_port_that_is_taken(taken: int, key: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1") as caught:
        ecos.init(data(support_stderr=True, **{key: taken}))
    assert caught.value.key == key


def test_it_uses_public_names_alone() -> None:
    lines = [line for path in Path(ecos.__file__).parent.glob("*.py") for line in path.read_text().splitlines()]
    imported = {line.split()[1] for line in lines if re.match(r"\s*from dunnart\.(?!ecos\.)", line)}
    # The size of threads' stacks is the process's, so its lock is everybody's; and all classes of data are records.
    public = {"dunnart.errors", "dunnart.keys", "dunnart.server"}
    assert imported == public | {"dunnart.runtime.threads", "dunnart.records"}


def test_nothing_is_printed() -> None:
    program = f"""
import logging
from dunnart.ecos import DropbearData, init
with init(DropbearData(rsa_private_host_key={RSA!r}, authenticate_password=lambda *_: True, connected=print,
                       address="127.0.0.1", port=0)):
    logging.getLogger("dunnart.server").error("it burns")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
