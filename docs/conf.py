"""How Sphinx builds the documentation: `make docs`. A warning is an error, and so is a reference that leads nowhere."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import textwrap
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.addnodes import pending_xref

import dunnart

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "dunnart"
author = "the dunnart contributors"
version = release = dunnart.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"dunnart {release}"
html_copy_source = False
html_show_sphinx = False
smartquotes = False

man_pages = [
    ("reference/commands", "dunnart", "SSH server, client, and what belongs to them", "", 1),
    ("reference/ssh", "dunnart-ssh", "log in at another machine, or run a command there", "", 1),
    ("reference/transfer-programs", "dunnart-scp", "copy files to and from other machines", "", 1),
    ("reference/transfer-programs", "dunnart-sftp", "fetch, send and look after files at another machine", "", 1),
    ("reference/authorized-keys", "dunnart-authorized_keys", "the keys that let a user in", "", 5),
    ("reference/sshd-config", "dunnart-sshd_config", "what dunnart makes of sshd's configuration", "", 5),
    ("reference/configuration", "dunnart.toml", "configuration of the SSH server dunnart", "", 5),
]
man_make_section_directory = True

# Nothing is fetched, while building or reading: no other projects' indices, no fonts, no scripts.
myst_heading_anchors = 4
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(_?asyncio|collections|enum|logging|os|socket|textual|types|typing)\..*"),  # others'
    ("py:.*", r"(.*\.)?_?[A-Z](_co)?"),  # type variables
    (
        "py:class",
        r"AbstractEventLoop|AbstractFileSystem|Any|Buffer|Counter|ForkServer|Literal|LoopThread|PathLike|Self|Separation|Socket|TextIO|TracebackType",
    ),
    ("py:class", r"AsyncIterator|Awaitable|Callable|Iterable|Iterator|Mapping|Sequence"),
    ("py:class", r"(dunnart\.keys\.rights\.)?Forwarding"),  # any object that is like dunnart.server.Forward
    ("py:class", r"(.*\.)?(Arena|Channel|KexInit|Message|Negotiated|Reader)"),  # for readers of the protocol's sources
]

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

_LAZY = ("dunnart", "dunnart.keys")
"""Packages whose names are loaded when they are first used; autodoc lists only what is there."""
_NOT_FOR_USERS_TO_MAKE = {
    "dunnart.ecos.Daemon", "dunnart.ecos.Handle",
    "dunnart.server.BlockingSession", "dunnart.server.EventSession", "dunnart.server.RawSession",
    "dunnart.server.Session", "dunnart.server.ClientLink", "dunnart.server.Scope",
    "dunnart.client.Agent", "dunnart.client.Channel", "dunnart.client.Connecting", "dunnart.client.Connection",
    "dunnart.client.Incoming", "dunnart.client.Listener", "dunnart.client.Session", "dunnart.client.blocking.Channel",
    "dunnart.client.blocking.Connection", "dunnart.client.blocking.Incoming", "dunnart.client.blocking.Listener",
    "dunnart.client.blocking.Session",
}  # fmt: skip
_OUTSIDE_THE_CLIENT = {"Channel": "", "Session": "dunnart.server.Session"}
"""What these names lead to on other pages than the client's, which has classes that are called so too."""
_SPECIAL = re.compile(r"(?<!\w)(\*\w[^*]*\*)|([*|\\]|(?<=\w)_(?!\w))")  # not *emphasis*
_SECTION = re.compile(r"\s*(Args|Attributes|Raises|Returns|Yields|Note):$")


def as_rst(lines: list[str]) -> list[str]:
    """Make reStructuredText of a docstring: `names` and indented code as Markdown has them, the rest as it stands.

    An empty comment (..) keeps napoleon from taking a first line with a colon for `type: text`.
    """
    made: list[str] = []
    code_indent: int | None = None
    inside = False  # `…`, which may go on from line to line
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if code_indent is not None and (not line.strip() or indent >= code_indent):
            made.append(line)
            continue
        code_indent = None
        before = next((text for text in reversed(made) if text.strip()), "")
        paragraph = not made or not made[-1].strip()
        if paragraph and before and indent >= len(before) - len(before.lstrip()) + 4 and not _SECTION.match(before):
            language = "python" if is_python(lines[number:], indent) else "text"
            made += [f"{' ' * (indent - 4)}.. code-block:: {language}", "", line]
            code_indent = indent
            continue
        inside = inside and bool(line.strip())
        parts = line.split("`")
        parts[inside::2] = [_SPECIAL.sub(lambda found: found[1] or f"\\{found[2]}", text) for text in parts[inside::2]]
        parts[2 - inside :: 2] = [re.sub(r"^(?=\w)", r"\\ ", text) for text in parts[2 - inside :: 2]]  # `name`s
        made.append("``".join(parts))
        inside ^= len(parts) % 2 == 0
        if re.match(r"\s*(Returns|Yields):$", line):
            made += [f"{' ' * (indent + 4)}..", ""]
    return made


def is_python(lines: list[str], indent: int) -> bool:
    """Whether the indented lines at the beginning are code, and not a drawing."""
    block = itertools.takewhile(lambda line: not line.strip() or line.startswith(" " * indent), lines)
    try:
        ast.parse(textwrap.dedent("\n".join(block)))
    except SyntaxError:
        return False
    return True


def process_docstring(_app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Make a docstring ready for napoleon."""
    lines[:] = as_rst(lines)
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]


def process_signature(
    _app: Sphinx, what: str, name: str, _object: object, _options: object, signature: str, returned: str
) -> tuple[str, str]:
    """Hide the arguments of what users do not make, and those of Server, which are ServerConfig's."""
    if name == "dunnart.server.Server":
        return "(handler: Handler | None = None, **arguments)", returned
    return ("" if what == "class" and name in _NOT_FOR_USERS_TO_MAKE else signature), returned


def public_name(
    app: Sphinx, _environment: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Lead a reference to where the name is documented; annotations name the module where it is defined."""
    if node.get("refdomain") != "py":
        return None
    domain = app.env.domains.python_domain
    name = node["reftarget"].rpartition(".")[2]
    found = sorted((full for full in domain.objects if full.endswith(f".{name}")), key=lambda full: full.count("."))
    if not found or (len(found) > 1 and found[0].count(".") == found[1].count(".")):
        return None
    made = domain.resolve_xref(app.env, node["refdoc"], app.builder, "obj", found[0], node, content)
    return made if isinstance(made, nodes.reference) else None


def outside_the_client(_app: Sphinx, doctree: nodes.document) -> None:
    """Tell names apart that the client and others share."""
    for node in list(doctree.findall(pending_xref)):
        name = node.get("reftarget")
        if name in _OUTSIDE_THE_CLIENT and not (node.get("py:module") or "").startswith("dunnart.client"):
            if _OUTSIDE_THE_CLIENT[name]:
                node["reftarget"] = _OUTSIDE_THE_CLIENT[name]
            else:
                node.replace_self(nodes.Text(name))


def for_manual(app: Sphinx, page: nodes.document, name: str) -> None:
    """Make a page one of the manual: lists in the place of tables, which terminals are too narrow for."""
    if app.builder.name != "man":
        return
    for table in list(page.findall(nodes.table)):
        table.replace_self(as_list(table))
    for reference in list(page.findall(nodes.reference)):
        if reference.get("internal"):  # a title, that leads nowhere now
            reference.replace_self(nodes.emphasis("", reference.astext()))
    top = next(page.findall(nodes.section))
    first = top.first_child_matching_class(nodes.section) or len(top)
    whole = nodes.raw("", ".nr HY 0\n.nh\n.ad l\n", format="manpage")  # names, which are long, get no hyphens
    top[1:first] = [nodes.section("", nodes.title("", "Description"), whole, *top[1:first])]
    others = ", ".join(f"{other}({section})" for start, other, _, _, section in man_pages if start != name)
    explained = [nodes.Text("Titles "), nodes.emphasis("", "like this"), nodes.Text(" are those of the documentation.")]
    seen = [nodes.paragraph("", others), nodes.paragraph("", "", *explained)]
    top += nodes.section("", nodes.title("", "See also"), *seen)


def as_list(table: nodes.table) -> nodes.definition_list:
    """Make a table a list: a row's first cell is a term; what has a heading follows what has none, each on a line."""
    (head,) = table.findall(nodes.thead)
    (body,) = table.findall(nodes.tbody)
    headings = [entry.astext() for entry in head.findall(nodes.entry)]
    made = nodes.definition_list()
    for row in body:
        term, *cells = row
        lines: list[nodes.Node] = []
        for heading, cell in sorted(zip(headings[1:], cells, strict=True), key=lambda each: each[0] != ""):
            if cell.astext():
                label = f"{heading}: " if heading else ""
                lines += [nodes.raw("", "\n.br\n", format="manpage"), nodes.Text(label), *cell[0].children]
        text = [nodes.definition("", nodes.paragraph("", "", *lines[1:]))] if lines else []
        made += nodes.definition_list_item("", nodes.term("", "", *term[0].children), *text)
    return made


def setup(app: Sphinx) -> None:
    """Sphinx's way in."""
    for name in _LAZY:
        module = importlib.import_module(name)
        for each in module.__all__:
            getattr(module, each)
    app.connect("autodoc-process-docstring", process_docstring, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", process_signature)
    app.connect("missing-reference", public_name)
    app.connect("doctree-read", outside_the_client)
    app.connect("doctree-resolved", for_manual)
