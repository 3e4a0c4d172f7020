"""Patterns of hosts and addresses, as OpenSSH's files have them (ssh_config(5), PATTERNS)."""

from __future__ import annotations

from typing import TypeGuard

_MAPPED = bytes(10) + b"\xff\xff"


def matches(pattern: str, name: str) -> bool:
    """Tell whether a pattern fits all of a name: * stands for any text, ? for one character, [ for itself.

    It takes no longer than both lengths multiplied, whatever the pattern.
    """
    at = here = 0
    star, resumed = -1, 0
    while here < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, resumed = at, here
            at += 1
        elif at < len(pattern) and pattern[at] in {"?", name[here]}:
            at += 1
            here += 1
        elif star >= 0:  # the last star takes one character more
            resumed += 1
            at, here = star + 1, resumed
        else:
            return False
    return not pattern[at:].strip("*")


class AddressPatterns:
    """A list of addresses, networks and patterns, separated by commas; a ! before one forbids what it fits.

    Args:
        text: as in `from="192.0.2.0/24,!192.0.2.7,2001:db8::*"`. What is no address is a pattern, and compared with
            the address's text; so a host's name fits nothing.

    Raises:
        ValueError: an entry is empty or too long, a network has bits set beyond its prefix, or what is to be forbidden
            is nearly an address, as 10.0.0.01, and so would forbid nothing.
    """

    __slots__ = ("_entries", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._entries = tuple(_entry(each) for each in text.split(","))

    def __contains__(self, address: str) -> bool:
        """Tell whether an IP address is among them. One that is IPv4 inside IPv6 counts as IPv4."""
        packed = _packed(address)
        if packed is None:
            return False
        from ipaddress import ip_address

        plain = str(ip_address(packed))
        found = False
        for forbids, entry in self._entries:
            fits = matches(entry, plain) if isinstance(entry, str) else _within(packed, *entry)
            if fits and forbids:
                return False
            found = found or fits
        return found

    def __repr__(self) -> str:
        return f"AddressPatterns({self.text!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """The entries that look like hosts' names, and so fit no address."""
        return tuple(entry for _, entry in self._entries if _is_name(entry))

    @property
    def forbidden_names(self) -> tuple[str, ...]:
        """Those of them that forbid what they would fit."""
        return tuple(entry for forbids, entry in self._entries if forbids and _is_name(entry))


def _is_name(entry: str | tuple[bytes, int]) -> TypeGuard[str]:
    return isinstance(entry, str) and not _ADDRESS_CHARACTERS.issuperset(entry)


_ADDRESS_CHARACTERS = frozenset("0123456789abcdef.:*?")
_LONGEST_ENTRY = 1023


def _entry(text: str) -> tuple[bool, str | tuple[bytes, int]]:
    forbids = text.startswith("!")
    entry = text.removeprefix("!")
    if not entry:
        raise ValueError("an entry is empty")
    if len(entry) > _LONGEST_ENTRY:
        raise ValueError("an entry is too long")
    if entry.strip() != entry:
        raise ValueError(f"a blank beside {entry.strip()!r}")
    address, slash, prefix = entry.partition("/")
    packed = _packed(address)
    if packed is None or "%" in entry:
        if slash:
            raise ValueError(f"{entry!r} is no network such as 192.0.2.0/24")
        if forbids and _ADDRESS_CHARACTERS.issuperset(entry.lower()) and not set("*?") & set(entry):
            raise ValueError(f"{text!r} forbids nothing, for {entry!r} is no address; * stands for the rest of one")
        return forbids, entry.lower()
    bits = 8 * len(packed)
    if slash:
        if not (prefix.isascii() and prefix.isdecimal() and len(prefix) <= 3 and int(prefix) <= bits):
            raise ValueError(f"{entry!r} has no prefix length of 0 to {bits} bits")
        bits = int(prefix)
    if int.from_bytes(packed, "big") & (1 << 8 * len(packed) - bits) - 1:
        raise ValueError(f"{entry!r} has bits set beyond its prefix")
    return forbids, (packed, bits)


def _packed(address: str) -> bytes | None:
    """Give an address as 4 or 16 bytes, one that is IPv4 inside IPv6 as 4; None if it is none."""
    from ipaddress import ip_address

    try:
        packed = ip_address(address.partition("%")[0]).packed  # without the zone of a link-local address
    except ValueError:
        return None
    return packed.removeprefix(_MAPPED) if len(packed) == 16 else packed


def _within(packed: bytes, network: bytes, bits: int) -> bool:
    if len(packed) != len(network):
        return False
    shift = 8 * len(packed) - bits
    return int.from_bytes(packed, "big") >> shift == int.from_bytes(network, "big") >> shift
