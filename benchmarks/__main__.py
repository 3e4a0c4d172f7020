"""`python -m benchmarks`: see `--help`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import pwd
import resource
import shutil
import sys
import tempfile
import time

from benchmarks.bench import Bench, tell
from benchmarks.clients import OpenSsh, make_identity
from benchmarks.measures import MEASURES
from benchmarks.peers import KINDS, Peer, version_of_ssh
from benchmarks.report import markdown

RESULTS = os.path.join(os.path.dirname(__file__), "results")
IN_NAMESPACE = "DUNNART_BENCH_NAMESPACE"


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    names = [kind.name for kind in KINDS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    parser.add_argument("--only", metavar="M,...", default=",".join(MEASURES), help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--peers", metavar="P,...", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument(
        "--quick", action="store_true", help="little work and two rounds: does it run, roughly how fast"
    )
    parser.add_argument("--rounds", type=int, help="default: 5, with --quick 2")
    parser.add_argument("--sshd", default="", help="path of OpenSSH's sshd")
    parser.add_argument("--dropbear", default="", help="path of Dropbear's server")
    parser.add_argument("--ssh", default="ssh", help="path of OpenSSH's client")
    parser.add_argument("--publish", action="store_true", help="write results/latest.md and .json too")
    options = parser.parse_args(arguments)
    for given, known in ((options.only, MEASURES), (options.peers, names)):
        for name in given.split(","):
            if name not in known:
                parser.error(f"{name!r} is none of {', '.join(known)}")
    if shutil.which(options.ssh) is None:
        parser.error(f"no OpenSSH client {options.ssh!r}; name one with --ssh")
    return options


def enter_namespace() -> None:
    """Run again, as root, in a mount namespace where ~/.bashrc is empty.

    bash reads it for every command that a server executes, and what it costs (100 ms are easily reached) would be all
    that a measurement of logins shows. Not root: it stays, and `logins` says what it costs.
    """
    bashrc = os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".bashrc")
    if os.getuid() or IN_NAMESPACE in os.environ or not os.path.exists(bashrc) or not shutil.which("unshare"):
        return
    os.environ[IN_NAMESPACE] = "1"
    again = [sys.executable, "-m", "benchmarks", *sys.argv[1:]]
    script = 'mount --bind /dev/null "$0" && exec "$@"'
    os.execvp("unshare", ["unshare", "--mount", "sh", "-c", script, bashrc, *again])


def conditions(options: argparse.Namespace, bench: Bench) -> dict[str, str]:
    """Describe the machine and the run."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return {
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "clients": f"{version_of_ssh(options.ssh)} (bulk, downloads, `ssh host true`), libssh2 (the rest)",
        "user": "root" if os.getuid() == 0 else "not root",
        "rounds": f"{bench.rounds}{', quick' if bench.quick else ''}",
    }


def main(arguments: list[str]) -> int:
    """Run what was asked for and write the report."""
    options = parse(arguments)
    enter_namespace()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # hundreds of sessions with pipes; servers inherit it
    with contextlib.ExitStack() as stack:
        # In the home folder: servers refuse authorized keys below a folder that others may write to, as /tmp is.
        home = pwd.getpwuid(os.getuid()).pw_dir
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".dunnart-bench-", dir=home))
        identity = make_identity(folder)
        peers: list[Peer] = []
        bench = Bench(
            peers,
            identity,
            OpenSsh(options.ssh, identity),
            options.quick,
            options.rounds or (2 if options.quick else 5),
        )
        for kind in KINDS:
            peer = kind(getattr(options, kind.name, ""))
            if kind.name in options.peers.split(","):
                reason = peer.missing()
                if reason is None:
                    peers.append(peer)
                else:
                    bench.skip(f"{peer.name}: {reason}")
        versions = {peer.name: f"{peer.version()}; {peer.conditions(identity)}" for peer in peers}
        described = conditions(options, bench)
        for name in options.only.split(","):
            MEASURES[name](bench)
        text = markdown(bench, described, versions)
    document = {"conditions": described, "peers": versions, "skipped": bench.skipped, "samples": bench.samples}
    os.makedirs(RESULTS, exist_ok=True)
    for stem in (time.strftime("run-%Y%m%dT%H%M%SZ", time.gmtime()), *(["latest"] if options.publish else [])):
        with open(os.path.join(RESULTS, f"{stem}.json"), "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
        with open(os.path.join(RESULTS, f"{stem}.md"), "w", encoding="utf-8") as file:
            file.write(text)
        tell(f"written: results/{stem}.md and .json")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
