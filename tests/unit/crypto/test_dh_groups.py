"""The primes, from the formulas of RFC 2409 and RFC 3526 and the digits of pi."""

from __future__ import annotations

import pytest

from dunnart.crypto.dh_groups import (
    GENERATOR,
    GROUP_1,
    GROUP_14,
    GROUP_15,
    GROUP_16,
    GROUP_17,
    GROUP_18,
    GROUPS,
)

# Bits of the prime, and the addend that makes it a safe prime (RFC 2409 §6.2, RFC 3526 §3-7).
FORMULAS = [
    pytest.param(GROUP_1, 1024, 129_093, id="group1"),
    pytest.param(GROUP_14, 2048, 124_476, id="group14"),
    pytest.param(GROUP_15, 3072, 1_690_314, id="group15"),
    pytest.param(GROUP_16, 4096, 240_904, id="group16"),
    pytest.param(GROUP_17, 6144, 929_484, id="group17"),
    pytest.param(GROUP_18, 8192, 4_743_158, id="group18"),
]


def arctan_of_inverse(divisor: int, one: int) -> int:
    term = total = one // divisor
    odd, sign = 1, 1
    while term:
        term //= divisor * divisor
        odd += 2
        sign = -sign
        total += sign * (term // odd)
    return total


def pi_times_two_to_the(bits: int) -> int:
    """Machin's formula, with 64 bits to spare for the rounding."""
    one = 1 << (bits + 64)
    return (4 * (4 * arctan_of_inverse(5, one) - arctan_of_inverse(239, one))) >> 64


def is_probable_prime(number: int, bases: tuple[int, ...]) -> bool:
    """Miller and Rabin's test; the formula, not this, protects against a made-up number."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        power = pow(base, odd, number)
        if power in {1, number - 1}:
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def test_pi_is_pi() -> None:
    assert hex(pi_times_two_to_the(64)) == "0x3243f6a8885a308d3"


@pytest.mark.parametrize(("prime", "bits", "addend"), FORMULAS)
def test_prime_is_that_of_the_formula(prime: int, bits: int, addend: int) -> None:
    assert prime == 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (pi_times_two_to_the(bits - 130) + addend)
    assert prime.bit_length() == bits


@pytest.mark.parametrize(("prime", "bits", "addend"), FORMULAS)
def test_prime_is_safe_and_the_generator_of_the_large_subgroup(prime: int, bits: int, addend: int) -> None:
    bases = (3, 5) if bits <= 4096 else (3,)
    assert is_probable_prime(prime, bases)
    assert is_probable_prime(prime // 2, bases)
    assert pow(GENERATOR, prime // 2, prime) == 1


def test_groups_for_the_exchange_are_in_order_and_of_their_size() -> None:
    assert list(GROUPS) == [2048, 3072, 4096, 6144, 8192]
    assert all(prime.bit_length() == bits for bits, prime in GROUPS.items())
    assert GROUP_1 not in GROUPS.values()
