"""The Markdown table and the targets of "How fast, how small"."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from benchmarks.bench import Bench

OURS = "dunnart"
YARDSTICK = "sshd"


class Target(NamedTuple):
    """What a metric of ours must reach: `most` or `least` times sshd's (paired by round), or `most` on its own."""

    metric: str
    most: float | None = None
    least: float | None = None
    absolute: bool = False

    def wanted(self) -> str:
        """Say it in the table."""
        sign, bound = ("≤", self.most) if self.most is not None else ("≥", self.least)
        return f"{sign} {bound:.3g}{'' if self.absolute else ' x sshd'}"

    def met_by(self, value: float) -> bool:
        """Tell whether a ratio or figure is good enough."""
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)


_CPU_PER_GB = {"aes128-gcm": 0.7, "chacha20-poly1305": 0.65, "aes128-ctr+hmac": 1.0}
TARGETS = [
    target
    for cipher, most in _CPU_PER_GB.items()
    for direction in ("down", "up")
    for target in (
        Target(f"bulk.{cipher}.{direction}.CPU-s/GB", most=most),
        Target(f"bulk.{cipher}.{direction}.MB/s", least=1.0),
    )
]
TARGETS += [
    Target("login.CPU-ms", most=1 / 20),
    Target("login+exec.CPU-ms", most=1 / 7),
    Target("ssh host true.ms", most=1 / 2),
    Target("login+exec.200 at once.seconds", most=1 / 5),
    Target("login+exec.200 at once.errors", most=0, absolute=True),
    Target("memory.each session.KiB", most=16, absolute=True),
    Target("memory.0 sessions.MB", most=20, absolute=True),
    Target("echo.idle.p50 ms", most=2),
    Target("echo.idle.p99 ms", most=2),
    Target("echo.beside a download.p50 ms", most=2),
    Target("echo.beside a download.p99 ms", most=2),
    Target("login.beside 4 downloads.p99 ms", most=1 / 3),
]
TARGETS += [
    target
    for what in ("down, aes128-gcm", "up, aes128-gcm", "down, chacha20-poly1305", "up, chacha20-poly1305")
    for target in (
        Target(f"files.1 GiB {what}.MB/s", least=1.0), Target(f"files.1 GiB {what}.CPU-s/GB", most=1.0),
    )
]  # fmt: skip
TARGETS += [
    target
    for kind in ("-L", "-R")
    for direction in ("down", "up")
    for target in (
        Target(f"forward.{kind} {direction}.MB/s", least=1.0), Target(f"forward.{kind} {direction}.CPU-s/GB", most=0.9),
    )
]  # fmt: skip
TARGETS += [
    Target(f"forward.{kind} connections.per second{how}", least=500, absolute=True)
    for kind in ("-L", "-R") for how in ("", ", 8 at once")
]  # fmt: skip
TARGETS += [Target(f"files.2000 of 4 KiB {direction}.seconds", most=1.5) for direction in ("up", "down")]
TARGETS += [
    Target("weight.nobody for a minute.pss MB", most=20, absolute=True),
    Target("weight.each session.KiB", most=64, absolute=True),
]
TARGETS += [Target("start.version line.ms", most=150, absolute=True)]
TARGETS += [Target("files.listing of 100000.seconds", most=2)]


def figure(value: float) -> str:
    """Round to three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def markdown(bench: Bench, conditions: dict[str, str], versions: dict[str, str]) -> str:
    """Make the report."""
    names = [name for name in versions if any(name in peers for peers in bench.samples.values())]
    others = [name for name in dict.fromkeys(itertools.chain(*bench.samples.values())) if name not in versions]
    lines = ["# Benchmark", "", *(f"- {key}: {value}" for key, value in conditions.items())]
    lines += [f"- {name} {version}" for name, version in versions.items()]
    lines += [f"- skipped: {what}" for what in bench.skipped]
    lines += ["", "Medians of the rounds; the CPU time and memory of a server are those of its processes without the"]
    lines += ["programs that its sessions execute.", ""]
    lines += _table(bench, names)
    if others:
        lines += ["", f"## {OURS} embedded, by the placement of its protocol", "", *_table(bench, others)]
    rows = targets(bench)
    if rows:
        lines += ["", f"## {OURS} against the targets", "", "Ratios are medians of the rounds' own ratios.", ""]
        lines += [f"| | {OURS} | {YARDSTICK} | ratio | wanted | |", "|---|---:|---:|---:|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _table(bench: Bench, names: list[str]) -> list[str]:
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for metric, peers in bench.samples.items():
        if any(name in peers for name in names):
            cells = (figure(statistics.median(peers[name])) if name in peers else "-" for name in names)
            lines.append(f"| {metric.replace('.', ', ')} | {' | '.join(cells)} |")
    return lines


def targets(bench: Bench) -> list[str]:
    """Make a row for each target that was measured."""
    rows = []
    for target in TARGETS:
        peers = bench.samples.get(target.metric, {})
        ours, theirs = peers.get(OURS), peers.get(YARDSTICK)
        if not ours or not (theirs or target.absolute):
            continue
        sshd, ratio = "-", "-"
        value = statistics.median(ours)
        if theirs:
            sshd = figure(statistics.median(theirs))
            if 0 not in theirs:
                paired = statistics.median(one / other for one, other in zip(ours, theirs, strict=False))
                ratio = f"{paired:.3f}"
                value = value if target.absolute else paired
        mark = "pass" if target.met_by(value) else "**MISS**"
        title = target.metric.replace(".", ", ")
        rows.append(f"| {title} | {figure(statistics.median(ours))} | {sshd} | {ratio} | {target.wanted()} | {mark} |")
    return rows
