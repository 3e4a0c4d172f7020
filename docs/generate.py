"""Writes the parts of the documentation that come from the code: `python docs/generate.py`, or `--check`."""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import io
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from unittest import mock

from dunnart.crypto.profiles import PROFILES
from dunnart.daemon.config import OPTIONS
from dunnart.daemon.matching import MAY_MATCH
from dunnart.daemon.plugins import registry
from dunnart.daemon.sshd_config.keywords import ALIASES, DEPRECATED, KEYWORDS
from dunnart.daemon.uses import AUTHORIZED_KEYS, GROUPS, ONE_TIME_PASSWORD
from dunnart.daemon.writing import option_table, toml
from dunnart.protocol.limits import OF_USERS, Limits
from dunnart.runtime.admission import Penalties
from dunnart.server.plugins import Found, options_of
from dunnart.tools.main import USAGE
from dunnart.tools.main import main as run

DOCS = Path(__file__).parent
_DESCRIBED = (
    "config", "config import", "plugins", "status", "top", "authorized-keys check", "keygen", "passwd", "totp", "sshd",
    "sftp-server", "dropbear", "dropbearkey", "dropbearconvert",
)  # fmt: skip
"""The commands whose help is on the page about commands; serve's is the configuration, clients have their own pages."""
_NAMES = {
    "kex": "key exchange", "host_key": "host keys", "user_key": "users' keys", "ciphers": "ciphers", "macs": "MACs",
    "compression": "compression",
}  # fmt: skip


def field_table(cls: type[Limits | Penalties]) -> str:
    """A dataclass's fields with their defaults and the strings that stand below them."""
    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for statement, after in zip(body.body, body.body[1:], strict=False):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            texts[statement.target.id] = " ".join(str(after.value.value).split())
    rows = ["| name | default | |", "|---|---|---|"]
    rows += [f"| `{each.name}` | `{each.default}` | {texts.get(each.name, '')} |" for each in fields(cls)]
    return "\n".join(rows) + "\n"


def plugin_table() -> str:
    """The built-in plug-ins: what each is, and which options its table has."""
    known = registry()
    option_of = {group: option for option, group in GROUPS.items()}
    rows = ["| plug-in | for | |", "|---|---|---|"]
    options = ["| option | default | |", "|---|---|---|"]
    for found in known.all():
        if found.distribution != "dunnart":
            continue
        factory = known.load(found)
        rows.append(f"| `{found.name}` | `{option_of[found.group]}` | {_summary(factory)} |")
        if found.name not in {AUTHORIZED_KEYS, ONE_TIME_PASSWORD}:  # filled in from options of the server
            options += _plugin_options(found, options_of(factory))
    return "\n".join([*rows, "", *dict.fromkeys(options)]) + "\n"  # one plug-in may be in several groups


def _summary(documented: object) -> str:
    return inspect.cleandoc(documented.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _plugin_options(found: Found, kind: type | None) -> list[str]:
    if kind is None:
        return []
    documented = "\n".join(inspect.cleandoc(each.__doc__ or "") for each in kind.__mro__ if each is not object)
    texts = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", documented, re.MULTILINE))
    rows = []
    for each in fields(kind):
        default = each.default if each.default is not MISSING else None
        if default is None and each.default_factory is not MISSING:
            default = each.default_factory()
        shown = "" if default is None else f"`{toml(default)}`"
        text = re.sub(r"\s+", " ", texts[each.name])
        rows.append(f"| `plugin.{found.name}.{each.name}` | {shown} | {text[:1].upper()}{text[1:]} |")
    return rows


def configuration() -> str:
    """The page about configuration."""
    return f"""# Configuration

Every option has one name: in the TOML file that `--config FILE` names, as a flag (with dashes), and in the API. Flags
override the file. The units and scripts that come with dunnart name `/etc/dunnart/dunnart.toml`.

`dunnart config` prints the effective configuration, `dunnart config --check --config FILE` only says what is wrong and
would stop the start; the exit status is then 2. It makes the plug-ins, which read their files, and reads the host keys;
as root it looks for `unprivileged_user` and at `empty_folder`, too: so run it as who runs the server. It makes no host
keys, folders or log, and does not try whether `listen` can be listened on; an audit log that is not there it makes.

```toml
listen = ["127.0.0.1:2222", "[::1]:2222"]
methods = ["publickey"]
profile = "strict"

[limits]
login_grace_seconds = 30
idle_seconds = 3600
```

{option_table()}
## Options for some logins

A table `[[match]]` holds criteria and options. It applies to the logins that meet all of its criteria, and its options
take the place of those outside such tables. Where several tables apply, the first that has an option counts; entries of
an option that is a table count one by one. [Say who may log in, and how](../how-to/rules.md) has examples.

| criterion | meets |
|---|---|
| `user` | the name that the client gives |
| `group` | the name of one of the user's groups |
| `address` | the client's address: addresses, networks and patterns; never a host's name |
| `local_address` | the address that the client has reached, written likewise |
| `local_port` | the port that it has reached |
| `all = true` | every login |

A criterion is a list of patterns, or a string with commas between them. `*` and `?` may stand in patterns; a `!` before
one forbids what it fits. These options may stand in such a table: {_listed(MAY_MATCH)}.
Of `limits` these may: {_listed(OF_USERS)}.

`dunnart config --user NAME --address ADDRESS` prints what a login would have; `--local-address` and `--local-port` say
the rest.

## Plug-ins

Every option whose flag takes a PLUGIN is the name of a plug-in that an installed package advertises, or `module:attr`.
A plug-in's own options stand in a table of its name, or come from `--plugin NAME.OPTION=VALUE`, which several times
makes a list. `log_level` is an option that each plug-in has: the level of its own messages.

```toml
authenticators = ["authorized-keys", "password-file"]
audit = ["log"]

[plugin.password-file]
file = "/etc/dunnart/passwords"
log_level = "debug"
```

`dunnart plugins` lists what is installed, what the configuration uses and for what, and what is broken.
[Write a plug-in](../how-to/write-a-plugin.md) shows how they are made. These come with dunnart:

{plugin_table()}
## Limits

The table `[limits]`, or `--limits name=value`: what one connection may use.

{field_table(Limits)}
## Penalties

The table `[penalties]`, or `--penalties name=value`: for how long a source is refused after what it did, as sshd's
PerSourcePenalties.

{field_table(Penalties)}"""


def commands() -> str:
    """The page about commands."""
    rows = re.findall(r"^  (\S+) +(.*)", USAGE, re.MULTILINE)
    table = [f"| `dunnart {name}` | {text} |" for name, text in rows]
    sections = [f"## dunnart {each}\n\n{command_help(each)}" for each in _DESCRIBED]
    return f"""# Commands

`dunnart COMMAND [FLAGS]`

| command | |
|---|---|
{_lines(table)}

`serve`, `config` and `plugins` take `--config FILE`, which names a TOML file, and a flag for each option of the
[configuration](configuration.md). [Start the server](../how-to/start.md) shows the ways to run `dunnart serve`.
[dunnart ssh and dbclient](ssh.md), and [dunnart sftp and dunnart scp](transfer-programs.md), have pages of their own.

The exit status is 0, 1 after a failure, and 2 for a wrong command line or configuration. Commands with the flags of
other programs have theirs.

{_lines(sections)}"""


def command_help(command: str) -> str:
    """What a command says about itself: a text as it is, a parser's arguments as a table."""
    parsers: list[argparse.ArgumentParser] = []
    said = io.TextIOWrapper(io.BytesIO(), "utf-8")  # programs set how it takes what it cannot write
    with (
        mock.patch.object(argparse.ArgumentParser, "print_help", autospec=True, side_effect=parsers.append),
        contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit),
    ):  # fmt: skip
        run([*command.split(), "--help"])
    if not parsers:
        said.seek(0)
        text = said.read()
        return f"```text\n{text[text.index('usage:') :].rstrip()}\n```\n"
    (parser,) = parsers
    usage, description = (" ".join((text or "").split()) for text in (parser.format_usage(), parser.description))
    shown = f"`{usage.removeprefix('usage: ')}`\n\n{description}\n"
    rows = []
    for each in parser._actions:  # noqa: SLF001 - there is no other way to them
        value = "" if each.nargs == 0 else f" {each.metavar or each.dest.upper()}"
        names = ", ".join(f"`{flag}{value}`" for flag in each.option_strings) or f"`{value.strip()}`"
        if each.dest != "help" and each.help:
            rows.append(f"| {names} | {' '.join(each.help.split())} |")
    if not rows or len(rows) > len(OPTIONS):  # every option, which the page about the configuration has
        return shown
    return f"{shown}\n| argument | |\n|---|---|\n{_lines(rows)}\n"


def _listed(names: tuple[str, ...]) -> str:
    return ",\n".join(", ".join(f"`{name}`" for name in names[start : start + 4]) for start in range(0, len(names), 4))


def profiles() -> str:
    """The algorithms of each profile."""
    rows = []
    for name, algorithms in PROFILES.items():
        rows += [f"### {name}\n", "| | in order of preference |", "|---|---|"]
        rows += [f"| {title} | {', '.join(f'`{each}`' for each in getattr(algorithms, key))} |"
                 for key, title in _NAMES.items()]  # fmt: skip
        rows.append("")
    return "\n".join(rows)


def sshd_keywords() -> str:
    """The page about sshd_config."""
    rows = []
    for keyword in sorted(KEYWORDS.values(), key=lambda each: each.key):
        if keyword.mapped:
            options = ", ".join(
                option if " " in option else f"`{option}`" for option in re.split(r", (?!with)", keyword.mapped)
            )
            what = f"becomes {options}"
        elif keyword.ignored:
            what = f"does nothing: {keyword.ignored}"
        else:
            values = [" ".join(each) if isinstance(each, tuple) else str(each) for each in keyword.harmless]
            shown = " and ".join(f"`{each}`" for each in values)
            what = f"**stops the start**, but for {shown}: {keyword.refused}"
        rows.append(f"| `{keyword.name}` | {what} |")
    older = ", ".join(f"`{old}` is `{KEYWORDS[new].name}`" for old, new in sorted(ALIASES.items()))
    return f"""# sshd_config

What `dunnart sshd`, and `dunnart config import sshd_config`, make of each keyword of OpenSSH 10.
[Swap sshd for dunnart](../how-to/swap-sshd.md) tells the rest.

| keyword | |
|---|---|
{_lines(rows)}

Older names, in small letters: {older}.
Deprecated, with a warning as sshd's, and nothing else: {", ".join(f"`{each}`" for each in sorted(DEPRECATED))}.
"""


def _lines(rows: list[str]) -> str:
    return "\n".join(rows)


def figures() -> str:
    """The first table of the last published benchmark, with its conditions; what has a page of its own is left out."""
    published = (DOCS.parent / "benchmarks" / "results" / "latest.md").read_text()
    conditions = [
        line for line in published.splitlines() if line.startswith(("- time", "- machine", "- python", "- rounds"))
    ]
    table = published[published.index("| | dunnart") :].split("\n\n")[0].splitlines()
    shown = [line for line in table if not line.startswith(("| weight,", "| files, echo"))]
    return "\n".join([*conditions, "", *shown]) + "\n"


def pages() -> dict[Path, str]:
    """What each page should hold."""
    readme = DOCS.parent / "README.md"
    before, after = readme.read_text().split("<!-- figures -->\n", 1)
    after = after[after.index("## Read on") :]
    protocol = DOCS / "reference" / "protocol.md"
    text = protocol.read_text()
    head, rest = text.split("<!-- profiles -->\n", 1)
    rest = rest[rest.index("Host certificates are offered") :]
    return {
        readme: f"{before}<!-- figures -->\n\n{figures()}\n{after}",
        DOCS / "reference" / "commands.md": commands(),
        DOCS / "reference" / "configuration.md": configuration(),
        DOCS / "reference" / "sshd-config.md": sshd_keywords(),
        protocol: f"{head}<!-- profiles -->\n\n{profiles()}\n{rest}",
    }


def main() -> int:
    """Write the pages, or with --check say which are out of date."""
    stale = [page for page, text in pages().items() if not page.exists() or page.read_text() != text]
    for page in stale:
        print(page.relative_to(DOCS.parent))
        if "--check" not in sys.argv:
            page.write_text(pages()[page])
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
