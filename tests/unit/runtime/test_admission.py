"""Who is let in: bounds, penalties, and books that always balance."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dunnart.runtime.admission import Admission, Network, Outcome, Penalties, SourceBits, StartupLimit, packed_address

A, B = "192.0.2.1", "192.0.2.2"


def admission(
    *,
    startups: StartupLimit = StartupLimit(),  # noqa: B008 - frozen
    per_source: int = 100,
    penalties: Penalties = Penalties(),  # noqa: B008 - frozen
    exempt: tuple[Network, ...] = (),
    chance: float = 0.5,
) -> Admission:
    return Admission(
        startups=startups, per_source=per_source, penalties=penalties, exempt=exempt, random=lambda: chance
    )  # fmt: skip


def misbehave(to: Admission, address: str, outcome: Outcome, now: float) -> float:
    assert to.admit(address, now) is None
    return to.closed(address, outcome, now)


@pytest.mark.parametrize("address", [A, "127.0.0.1", "::1"])
def test_fifty_honest_logins_at_once_pass(address: str) -> None:
    tested = admission()
    for _ in range(3):
        assert [tested.admit(address, 0.0) for _ in range(50)] == [None] * 50
        for _ in range(50):
            tested.finished_login(address)
    assert tested.waiting == 0
    assert tested.counters["logged_in"] == 150
    assert tested.counters["refused_source"] == tested.counters["refused_startups"] == 0


def test_one_source_cannot_take_more_than_its_share() -> None:
    tested = admission(per_source=3)
    assert [tested.admit(A, 0.0) for _ in range(3)] == [None] * 3
    refusal = tested.admit(A, 0.0)
    assert refusal is not None
    assert refusal.counter == "refused_source"
    assert tested.counters["refused_source"] == 1
    assert tested.admit(B, 0.0) is None
    tested.finished_login(A)
    assert tested.admit(A, 0.0) is None


def test_no_bound_for_a_source() -> None:
    tested = admission(per_source=0)
    assert [tested.admit(A, 0.0) for _ in range(99)] == [None] * 99


@pytest.mark.parametrize(
    ("waiting", "chance", "admitted"),
    [
        (9, 0.0, True),  # below begin nothing drops
        (10, 0.29, False),  # 30 % at begin
        (10, 0.31, True),
        (15, 0.64, False),  # halfway: 65 %
        (15, 0.66, True),
        (19, 0.92, False),
        (20, 0.999999, False),  # full
    ],
)
def test_early_drop_rises_from_rate_to_all(waiting: int, chance: float, admitted: bool) -> None:
    now = [0.999999]
    tested = Admission(startups=StartupLimit(10, 30, 20), per_source=0, random=lambda: now[0])
    while tested.waiting < waiting:
        assert tested.admit(A, 0.0) is None
    now[0] = chance
    refusal = tested.admit(A, 0.0)
    assert (refusal is None) is admitted
    assert tested.counters["refused_startups"] == (not admitted)


@pytest.mark.parametrize(
    ("outcome", "times"),
    [
        (Outcome.AUTH_FAILURE, 4),  # 5 s each, and more than 15 s are wanted
        (Outcome.INVALID_USER, 4),
        (Outcome.NO_AUTH, 16),
        (Outcome.GRACE_EXCEEDED, 2),
        (Outcome.CRASH, 1),
    ],
)
def test_penalties_add_up_until_they_bite(outcome: Outcome, times: int) -> None:
    tested = admission()
    assert [misbehave(tested, A, outcome, 0.0) for _ in range(times - 1)] == [0.0] * (times - 1)
    seconds = misbehave(tested, A, outcome, 0.0)
    assert seconds > 15
    refusal = tested.admit(A, seconds - 0.1)
    assert refusal is not None
    assert refusal.counter == "refused_penalty"
    assert tested.admit(B, 0.0) is None
    assert tested.admit(A, seconds + 0.1) is None
    assert tested.penalised == 0
    assert tested.counters[f"penalty_{outcome.value}"] == times


def test_an_active_penalty_lasts_until_its_end_and_has_a_maximum() -> None:
    tested = admission(penalties=Penalties(max_seconds=100))
    together = [tested.admit(A, 0.0) for _ in range(3)]
    assert together == [None] * 3
    assert [tested.closed(A, Outcome.CRASH, 0.0) for _ in range(3)] == [90.0, 100.0, 100.0]
    assert tested.admit(A, 99.0) is not None  # though less than min_seconds are left
    assert tested.admit(A, 100.1) is None


def test_a_slow_trickle_of_failures_is_forgiven() -> None:
    tested = admission()
    assert [misbehave(tested, A, Outcome.AUTH_FAILURE, 6.0 * n) for n in range(20)] == [0.0] * 20


def test_blameless_ends_disabled_penalties_and_exempt_networks_get_none() -> None:
    for tested, outcome in (
        (admission(), Outcome.BLAMELESS),
        (admission(penalties=Penalties(enabled=False)), Outcome.CRASH),
        (admission(penalties=Penalties(crash_seconds=0)), Outcome.CRASH),
        (admission(exempt=(Network("192.0.2.0/24"),)), Outcome.CRASH),
    ):
        assert misbehave(tested, A, outcome, 0.0) == 0.0
        assert tested.admit(A, 0.0) is None
        assert tested.penalised == 0
    tested = admission(exempt=(Network("192.0.2.1"), Network("::/0")))
    assert misbehave(tested, B, Outcome.CRASH, 0.0) == 90.0


def test_a_unix_socket_peer_is_counted_but_never_penalised() -> None:
    tested = admission(per_source=1, startups=StartupLimit(5, 100, 5))
    assert misbehave(tested, "", Outcome.CRASH, 0.0) == 0.0
    assert [tested.admit("", 0.0) for _ in range(5)] == [None] * 5
    assert tested.waiting == 5
    assert tested.admit("", 0.0) is not None


def test_a_source_is_a_network() -> None:
    tested = admission()
    assert misbehave(tested, "2001:db8::1", Outcome.CRASH, 0.0) == 90.0
    assert tested.admit("2001:db8::ffff:1", 0.0) is not None
    assert tested.admit("2001:db8:0:1::1", 0.0) is None
    assert misbehave(tested, f"::ffff:{A}", Outcome.CRASH, 0.0) == 90.0
    assert tested.admit(A, 0.0) is not None
    assert misbehave(tested, "fe80::1%eth0", Outcome.CRASH, 0.0) == 90.0
    assert tested.admit("fe80::2%eth1", 0.0) is not None
    wide = Admission(
        startups=StartupLimit(), per_source=1, source_bits=SourceBits(24, 128), random=lambda: 0.5
    )  # fmt: skip
    assert wide.admit(A, 0.0) is None
    assert wide.admit(B, 0.0) is not None
    assert wide.admit("192.0.3.1", 0.0) is None


def test_memory_is_bounded_and_the_oldest_makes_room() -> None:
    tested = admission(penalties=Penalties(sources=100))
    for number in range(300):
        misbehave(tested, f"10.0.{number // 256}.{number % 256}", Outcome.CRASH, 0.0)
    assert tested.penalised == 100
    assert tested.admit("10.0.0.199", 1.0) is None
    assert tested.admit("10.0.0.200", 1.0) is not None
    misbehave(tested, B, Outcome.CRASH, 1000.0)  # all others have expired: each new one sweeps two
    assert tested.penalised == 99


def test_giving_back_twice_is_a_mistake() -> None:
    tested = admission()
    assert tested.admit(A, 0.0) is None
    tested.finished_login(A)
    with pytest.raises(AssertionError, match="twice"):
        tested.closed(A, Outcome.BLAMELESS, 0.0)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("0.0.0.0/0", "255.1.2.3", "::1"),
        ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
    ],
)
def test_networks(text: str, inside: str, outside: str) -> None:
    network = Network(text)
    within, without = packed_address(inside), packed_address(outside)
    assert within is not None
    assert without is not None
    assert within in network
    assert without not in network
    assert str(network) == text


@pytest.mark.parametrize("text", ["", "x", "192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/-1", "::1/0"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r"network|prefix"):
        Network(text)


@pytest.mark.parametrize("numbers", [(0, 30, 10), (20, 30, 10), (1, 0, 10), (1, 101, 10)])
def test_startup_limits_that_make_no_sense(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        StartupLimit(*numbers)


class Books(RuleBasedStateMachine):
    """Whatever comes and goes, what is counted is what is there."""

    addresses = st.sampled_from([A, B, "::1", "2001:db8::1", "2001:db8::2", ""])

    def __init__(self) -> None:
        super().__init__()
        self.chance = 0.0
        self.now = 0.0
        self.limit = StartupLimit(4, 30, 12)
        self.tested = Admission(
            startups=self.limit, per_source=5, penalties=Penalties(sources=2), random=lambda: self.chance
        )
        self.there: list[str] = []
        self.asked = self.in_time = 0

    @rule(address=addresses, chance=st.floats(0, 1, exclude_max=True))
    def connect(self, address: str, chance: float) -> None:
        self.chance = chance
        self.asked += 1
        if self.tested.admit(address, self.now) is None:
            self.there.append(address)
            self.in_time += 1

    @precondition(lambda self: self.there)
    @rule(data=st.data(), outcome=st.sampled_from([None, *Outcome]))
    def leave(self, data: st.DataObject, outcome: Outcome | None) -> None:
        address = self.there.pop(data.draw(st.integers(0, len(self.there) - 1)))
        if outcome is None:
            self.tested.finished_login(address)
        else:
            assert 0 <= self.tested.closed(address, outcome, self.now) <= 600

    @rule(seconds=st.floats(0, 700))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def balanced(self) -> None:
        tested = self.tested
        assert tested.waiting == len(self.there) <= self.limit.full
        by_source = {tested._source(address): 0 for address in self.there if address}
        for address in filter(None, self.there):
            by_source[tested._source(address)] += 1
        assert tested._waiting_by_source == by_source
        assert all(number <= 5 for number in by_source.values())
        assert tested.penalised <= 2
        counters = tested.counters
        refused = sum(number for name, number in counters.items() if name.startswith("refused_"))
        assert counters["admitted"] == self.in_time
        assert counters["admitted"] + refused == self.asked
        assert min(counters.values()) >= 0


TestBooks = Books.TestCase
