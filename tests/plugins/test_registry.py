"""Plug-ins are found by name, loaded, made and checked; what is wrong with one is said in one line."""

from __future__ import annotations

import logging
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dunnart.errors import ConfigError, PluginError
from dunnart.plugins import BUILT_IN
from dunnart.server import plugins
from dunnart.server.plugins import GROUPS, SHELLS, Context, Found, Group, Registry, options_of
from tests.plugins.packages import Site

ROOT = Path(__file__).parents[2]
GREETER = """\
import dataclasses
from dunnart.server.plugins import plugin

@dataclasses.dataclass(frozen=True)
class Options:
    greeting: str = "Hello"

@plugin(Options)
class Greeter:
    def __init__(self, context):
        self.context = context

    async def __call__(self, session):
        await session.write(self.context.options.greeting)

class Names:
    Inner = Greeter

number = 7
async def handler(session): pass
def nothing(context): return None
def a_class(context): return Greeter
def fails(context): raise RuntimeError("the moon\\nis full")
def leaves(context): raise SystemExit(3)
def says(context):
    from dunnart.errors import ConfigError
    raise ConfigError("is too long", key="greeting")
def coroutine(context): return handler(context)
"""


def context(name: str = "x") -> Context[None]:
    return Context(name, None, logging.getLogger("dunnart.plugin.x"))


def advertised(*names: str, module: str = "acme") -> dict[str, dict[str, str]]:
    return {"dunnart.shells": dict.fromkeys(names, f"{module}:Greeter")}


def test_the_built_in_ones_are_advertised_as_the_table_has_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = {group: table for group, table in project["entry-points"].items() if group.startswith("dunnart.")}
    assert ours == BUILT_IN
    assert ours.keys() <= GROUPS.keys()


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, names in BUILT_IN.items() for name in names]
)  # fmt: skip
def test_the_built_in_ones_load(group: str, name: str) -> None:
    registry = Registry(BUILT_IN)
    found = registry.find(GROUPS[group], name)
    assert (found.distribution, found.target) == ("dunnart", BUILT_IN[group][name])
    assert callable(registry.load(found))


def test_built_in_ones_are_found_without_the_packages_metadata() -> None:
    program = """\
import sys
from dunnart.plugins import BUILT_IN
from dunnart.server.plugins import SHELLS, Context, Registry
registry = Registry(BUILT_IN)
found = registry.find(SHELLS, "os")
registry.make(SHELLS, found, registry.load(found), Context("os", None, None))
print([name for name in ("importlib.metadata", "email", "difflib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_a_package_brings_one(site: Site) -> None:
    site.add("acme", GREETER, advertised("greeter"))
    registry = Registry(BUILT_IN)
    found = registry.find(SHELLS, "greeter")
    assert found == Found("dunnart.shells", "greeter", "acme:Greeter", "acme", "1.0")
    assert found.origin == "acme:Greeter of acme 1.0"
    factory = registry.load(found)
    kind = options_of(factory)
    assert kind is not None
    made: Any = registry.make(SHELLS, found, factory, Context("greeter", kind("Hi"), logging.getLogger("x")))
    assert made.context.options.greeting == "Hi"
    assert registry.find(SHELLS, "os").target == BUILT_IN["dunnart.shells"]["os"]


@pytest.mark.parametrize("target", ["acme:Greeter", "acme:Names.Inner"])
def test_module_and_attribute_will_do(site: Site, target: str) -> None:
    site.add("acme", GREETER, {})
    registry = Registry(BUILT_IN)
    found = registry.find(SHELLS, target)
    assert (found.origin, found.distribution) == (target, "")
    assert registry.load(found).__name__ == "Greeter"


def test_everything_that_is_installed_is_listed(site: Site) -> None:
    site.add("acme", GREETER, advertised("b", "a"))
    site.add("zoo", GREETER, advertised("a", "os", module="zoo"))
    found = Registry(BUILT_IN).all()
    shells = [(each.name, each.distribution) for each in found if each.group == "dunnart.shells"]
    own = [(name, "dunnart") for name in BUILT_IN["dunnart.shells"]]
    assert shells == [*own, ("a", "acme"), ("a", "zoo"), ("b", "acme"), ("os", "zoo")]
    assert {each.name for each in found if each.distribution == "dunnart"} == {
        name for names in BUILT_IN.values() for name in names
    }  # fmt: skip


def test_a_built_in_name_is_nobody_elses(site: Site) -> None:
    site.add("acme", GREETER, advertised("os"))
    assert Registry(BUILT_IN).find(SHELLS, "os").distribution == "dunnart"


def test_a_name_that_two_packages_advertise_is_nobodys(site: Site) -> None:
    site.add("acme", GREETER, advertised("greeter"))
    site.add("zoo", GREETER, advertised("greeter", module="zoo"), version="2.3")
    with pytest.raises(PluginError) as caught:
        Registry(BUILT_IN).find(SHELLS, "greeter")
    assert str(caught.value) == (
        "greeter: the name is advertised by acme:Greeter of acme 1.0 and zoo:Greeter of zoo 2.3; write module:attr to "
        "choose one"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("greter", "no installed package has a shell of this name; did you mean greeter?"),
        ("so", "did you mean os?"),
        ("zzzzzz", "dunnart plugins lists what is installed"),
    ],
)
def test_a_name_that_there_is_not(site: Site, name: str, message: str) -> None:
    site.add("acme", GREETER, advertised("greeter"))
    with pytest.raises(PluginError) as caught:
        Registry(BUILT_IN).find(SHELLS, name)
    assert str(caught.value).startswith(f"{name}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nosuchmodule:x", "cannot be imported: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("acme:nothere", "cannot be imported: AttributeError: module 'acme' has no attribute 'nothere'"),
        ("acme:number", "acme:number is no factory: it cannot be called"),
        ("acme:handler", "is a coroutine function; a factory is wanted, which takes the context and gives a shell"),
        ("broken:x", "cannot be imported: ZeroDivisionError: division by zero"),
        ("leaving:x", "cannot be imported: SystemExit: 1"),
        ("syntax:x", "cannot be imported: SyntaxError: "),
    ],
)
def test_what_cannot_be_loaded(site: Site, target: str, message: str) -> None:
    site.add("acme", GREETER, {})
    site.add("broken", "1 / 0", {})
    site.add("leaving", "import sys; sys.exit(1)", {})
    site.add("syntax", "def", {})
    registry = Registry(BUILT_IN)
    with pytest.raises(PluginError) as caught:
        registry.load(registry.find(SHELLS, target))
    assert str(caught.value).startswith(f"{target}: {target} ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("acme:nothing", "the factory acme:nothing gave None, which is not a shell: None is no async def handler"),
        ("acme:a_class", "which is not a shell"),
        ("acme:fails", "acme:fails cannot be made: RuntimeError: the moon is full"),
        ("acme:leaves", "acme:leaves cannot be made: SystemExit: 3"),
        ("acme:coroutine", "the factory acme:coroutine gave <coroutine object handler"),
    ],
)
def test_what_cannot_be_made(site: Site, target: str, message: str) -> None:
    site.add("acme", GREETER, {})
    registry = Registry(BUILT_IN)
    found = registry.find(SHELLS, target)
    with pytest.raises(PluginError) as caught:
        registry.make(SHELLS, found, registry.load(found), context(target))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_factory_may_say_which_option_it_cannot_use(site: Site) -> None:
    site.add("acme", GREETER, {})
    registry = Registry(BUILT_IN)
    found = registry.find(SHELLS, "acme:says")
    with pytest.raises(ConfigError) as caught:
        registry.make(SHELLS, found, registry.load(found), context())
    assert caught.value.key == "greeting"


class Thing:
    """Has what the interfaces want."""

    method = "password"

    async def authenticate(self, attempt: object) -> None: ...
    async def admit(self, attempt: object, allowed: object) -> None: ...
    async def keys(self, user: str, address: str) -> None: ...
    async def open(self, opening: object) -> None: ...
    async def answer(self, request: object) -> None: ...
    async def prepare(self, request: object) -> None: ...
    async def allows(self, forward: object) -> None: ...
    def record(self, event: object) -> None: ...
    def begin(self, session: object) -> None: ...
    def __call__(self, following: object) -> None: ...


@pytest.mark.parametrize("group", GROUPS.values(), ids=list(GROUPS))
def test_objects_are_checked_by_their_group(group: Group[object]) -> None:
    thing = Thing()
    assert group.check(thing) is thing
    for wrong in (None, 7, "x", object(), Thing):
        with pytest.raises((TypeError, ConfigError)):
            group.check(wrong)


def test_an_authenticator_has_a_method_that_there_is() -> None:
    thing = Thing()
    thing.method = "telepathy"
    with pytest.raises(TypeError, match="its method is 'telepathy', which is none of none, publickey, password"):
        plugins.AUTHENTICATORS.check(thing)


def test_options_are_a_dataclass() -> None:
    with pytest.raises(TypeError, match="is no dataclass"):
        plugins.plugin(dict)
