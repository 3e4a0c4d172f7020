"""The table, held against what the RFCs and THREATS R1-R6 say, not against itself."""

from __future__ import annotations

from itertools import product

from dunnart.protocol.phases import ALLOWED, KNOWN, Kex, Role, Stage

AUTHENTICATION = frozenset(range(50, 80))
CONNECTION = frozenset(range(80, 128))


def cells(**wanted: object) -> list[frozenset[int]]:
    names = ("role", "stage", "kex", "strict")
    return [
        numbers
        for key, numbers in ALLOWED.items()
        if all(dict(zip(names, key, strict=True))[name] is value for name, value in wanted.items())
    ]


def test_table_is_complete() -> None:
    assert set(ALLOWED) == set(product(Role, Stage, Kex, (False, True)))
    assert all(numbers <= KNOWN for numbers in ALLOWED.values())
    assert all(1 in numbers for numbers in ALLOWED.values())  # a peer may always leave


def test_connection_messages_only_after_the_login() -> None:
    for (_, stage, _, _), numbers in ALLOWED.items():
        assert stage is Stage.CONNECTION or not numbers & CONNECTION


def test_server_takes_nothing_that_only_servers_send() -> None:
    for numbers in cells(role=Role.SERVER):
        assert not numbers & {6, 33, 51, 52, 53, 60}
    # 31 is KEXDH_REPLY of one method, which only servers send, and KEXGSS_CONTINUE of another (RFC 4462 §2.1).
    assert all(
        31 not in numbers for kex in Kex if kex is not Kex.EXCHANGE for numbers in cells(role=Role.SERVER, kex=kex)
    )


def test_client_takes_nothing_that_only_clients_send() -> None:
    for numbers in cells(role=Role.CLIENT):
        assert not numbers & {5, 30, 32, 34, 50, 61}


def test_while_keys_are_exchanged_only_transport_messages() -> None:
    """RFC 4253 §7.1: 1 to 4 and 20 to 49, and here each only in its turn."""
    for kex in (Kex.EXCHANGE, Kex.BUSY, Kex.NEWKEYS):
        for numbers in cells(kex=kex):
            assert numbers <= {1, 2, 3, 4, 21, *range(30, 50)}
            assert (21 in numbers) is (kex is Kex.NEWKEYS)
            assert bool(numbers & set(range(30, 50))) is (kex is Kex.EXCHANGE)


def test_newkeys_and_methods_only_in_an_exchange() -> None:
    for kex in (Kex.IDLE, Kex.OFFERED):
        for numbers in cells(kex=kex):
            assert not numbers & {21, *range(30, 50)}


def test_strict_first_exchange_has_nothing_else() -> None:
    for kex in (Kex.EXCHANGE, Kex.BUSY, Kex.NEWKEYS):
        for numbers in cells(stage=Stage.FIRST_KEX, kex=kex, strict=True):
            assert not numbers & {2, 3, 4}
        for numbers in cells(stage=Stage.FIRST_KEX, kex=kex, strict=False):
            assert numbers >= {1, 2, 3, 4}


def test_authentication_messages_only_while_it_runs() -> None:
    for (role, stage, _, _), numbers in ALLOWED.items():
        if stage in (Stage.FIRST_KEX, Stage.EXT_INFO, Stage.SERVICE):
            assert not numbers & AUTHENTICATION
        if stage is Stage.CONNECTION:
            assert numbers & AUTHENTICATION <= ({50} if role is Role.SERVER else {53})
    assert all(61 not in numbers for numbers in cells(stage=Stage.AUTH))


def test_server_takes_ext_info_in_one_place() -> None:
    for (_, stage, kex, _), numbers in ((key, n) for key, n in ALLOWED.items() if key[0] is Role.SERVER):
        assert (7 in numbers) is (stage is Stage.EXT_INFO and kex in (Kex.IDLE, Kex.OFFERED))


def test_a_client_exchanges_keys_once_before_its_login() -> None:
    for (_, stage, _, _), numbers in ((key, n) for key, n in ALLOWED.items() if key[0] is Role.SERVER):
        assert 20 not in numbers or stage in (Stage.FIRST_KEX, Stage.CONNECTION)
