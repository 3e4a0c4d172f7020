from __future__ import annotations

import pytest

from dunnart.protocol.limits import KIB, Limits


def test_defaults_are_within_themselves() -> None:
    limits = Limits()
    assert (limits.login_grace_seconds, limits.max_auth_tries, limits.packet_bytes) == (60, 6, 256 * KIB)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_auth_tries", -1), ("idle_seconds", -0.5), ("rekey_packets", 0), ("rekey_packets", 2**31 + 1),
        ("channel_packet_bytes", 1023), ("channel_packet_bytes", 256 * KIB), ("packet_bytes", 256 * KIB + 1),
        ("packet_bytes_before_login", 4095), ("packet_bytes_before_login", 256 * KIB + 1),
        ("window_bytes", 32 * KIB - 1),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Limits(**{field: value})  # type: ignore[arg-type]
