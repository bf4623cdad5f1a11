"""Every libvirt call in the producer's code has its place in the table of calls that may wait, and nothing else has."""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import libvirt
import libvirt_qemu
import pytest

from virtflow.producer import hypervisor
from virtflow.producer.hypervisor.call_safety import BULK, OF_CLIENT, OF_DAEMON, OF_HELPER, TABLE, LibvirtCall

PRODUCER = Path(hypervisor.__file__).resolve().parent.parent
MODULES = {"libvirt": libvirt, "libvirt_qemu": libvirt_qemu}
OBJECTS = {"connection", "domain"}
"""What the producer calls libvirt's objects, whether a variable, an attribute or a private one: see the test of their names."""
ALIASES = {"Connection", "Domain"}
"""What it calls their types."""
GROUPS = {call for call in LibvirtCall if call.name.startswith("GROUP_")}
PLACES = {
    "the table": {call.value for call in TABLE} - {group.value for group in GROUPS},
    "bulk calls": BULK,
    "the client's": OF_CLIENT,
    "the daemon's": OF_DAEMON,
    "the helper's": OF_HELPER,
}

METHODS = {
    name
    for kind in vars(libvirt).values()
    if inspect.isclass(kind) and kind.__name__.startswith("vir")
    for name, value in vars(kind).items()
    if callable(value) and not name.startswith("_")
}
"""The methods of all of libvirt's objects."""

UNMISTAKABLE = {
    *{"autostart", "create", "destroy", "migrate", "migrate2", "migrate3", "reboot", "reset"},
    *{"restore", "resume", "save", "screenshot", "suspend", "undefine"},
}
"""Methods that nothing else in the producer has, though they are named as Python's are: libvirt's whatever they are looked up on."""
OF_NO_NAME = {"hostname", "info", "metadata", "shutdown", "state", "vcpus"}
"""Methods that something else has too, but nothing that has no name: ``known[uuid].info``."""
HANDLES = {"listAllDomains", "lookupByID", "lookupByName", "lookupByUUID", "lookupByUUIDString"}
"""Calls that return VMs."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PRODUCER.rglob("*.py")):
        yield path.relative_to(PRODUCER).as_posix(), ast.parse(path.read_text())


def last_name(expression: ast.expr) -> str:
    """``self._connection``, ``link.connection`` and ``connection`` are all a connection."""
    match expression:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.removeprefix("_")
    return ""


def is_call(node: ast.Attribute) -> bool:
    """Whether a libvirt call is named: made at once, or handed on to be made.

    A method that is named as no Python method is (``jobStats``) is libvirt's, whatever it is looked up on; ``info`` only on libvirt's objects,
    and on what has no name.
    """
    receiver = last_name(node.value)
    if (module := MODULES.get(receiver)) is not None:
        return inspect.isfunction(getattr(module, node.attr, None))
    if node.attr != node.attr.lower() or receiver in OBJECTS:
        return node.attr in METHODS
    return node.attr in UNMISTAKABLE or (not receiver and node.attr in OF_NO_NAME)


def misnamed(tree: ast.Module) -> list[int]:
    """The lines in which a VM that libvirt returned gets another name than ``domain``, by an assignment or in a loop."""
    named: list[tuple[ast.expr, ast.expr]] = []
    for node in ast.walk(tree):
        match node:
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                named.append((target, value))
            case ast.Assign(targets=[target], value=value) | ast.NamedExpr(target=target, value=value):
                named.append((target, value))
    return [
        target.lineno
        for target, value in named
        if isinstance(target, ast.Name)
        and target.id != "domain"
        and any(isinstance(part, ast.Attribute) and part.attr in HANDLES for part in ast.walk(value))
        and not isinstance(value, ast.SetComp | ast.DictComp | ast.ListComp)
    ]


def calls_in(tree: ast.Module) -> set[str]:
    """But for what is looked up on another module, such as ``uuid.UUID``."""
    others = {name.asname or name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names} - MODULES.keys()
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_call(node)]
    return {node.attr for node in named if not (isinstance(node.value, ast.Name) and node.value.id in others)}


@pytest.fixture(scope="module")
def made() -> dict[str, set[str]]:
    """The modules in which each libvirt call is named."""
    found = defaultdict(set)
    for name, tree in sources():
        for call in calls_in(tree):
            found[call].add(name)
    return found


def test_every_call_has_its_place(made: dict[str, set[str]]) -> None:
    """A new call is measured before it is made: in the table by ``tests/lab/test_call_safety.py``."""
    assert {call: sorted(modules) for call, modules in made.items() if call not in set().union(*PLACES.values())} == {}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_of_a_call_that_is_made(place: str, made: dict[str, set[str]]) -> None:
    assert sorted(PLACES[place] - made.keys()) == []


def test_no_call_has_two_places() -> None:
    assert sum(map(len, PLACES.values())) == len(set().union(*PLACES.values()))
    assert TABLE.keys() == set(LibvirtCall)


def test_the_helpers_calls_are_made_by_the_helper_alone(made: dict[str, set[str]]) -> None:
    """They may wait on every version; sampling makes none of them."""
    assert {module for call in OF_HELPER for module in made[call]} == {"agent/queries.py"}


def test_bulk_calls_name_their_groups() -> None:
    """By the two masks that are made of the table: no other group is named anywhere in the producer, and no call is without one."""
    asked = [
        (name, node)
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in BULK
    ]
    assert len(asked) == 5  # two of getAllDomainStats, three of domainListGetStats
    for name, node in asked:
        groups = node.args[0 if isinstance(node.func, ast.Attribute) and node.func.attr == "getAllDomainStats" else 1]
        assert last_name(groups) in {"safe", "monitor", "everything", "groups"}, f"{name}:{node.lineno}"
    others = {
        f"{name}: {node.attr}"
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("VIR_DOMAIN_STATS_")
    }
    assert others == set()


def test_libvirts_objects_go_by_two_names() -> None:
    """``connection`` and ``domain``, by which their calls are found here; no method of theirs is looked up by a text."""
    wrong = []
    for name, tree in sources():
        wrong += [f"{name}:{line}: a VM of another name" for line in misnamed(tree)]
        for node in ast.walk(tree):
            match node:
                case ast.arg(arg=argument, annotation=ast.Name(id=kind)) if kind in ALIASES:
                    if argument != kind.lower():
                        wrong.append(f"{name}:{node.lineno}: {argument}: {kind}")
                case ast.Call(func=ast.Name(id="getattr"), args=[receiver, *_]) if last_name(receiver) in OBJECTS:
                    wrong.append(f"{name}:{node.lineno}: getattr of a {last_name(receiver)}")
                case _:
                    pass
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("domain.blockJobInfo('vda')", {"blockJobInfo"}),
        ("tried(vm.jobInfo)", {"jobInfo"}),
        ("self._connection.listAllDomains()", {"listAllDomains"}),
        ("link.connection.close()", {"close"}),
        ("domain.info()", {"info"}),
        ("known[uuid].info()", {"info"}),
        ("connection.lookupByName(name).state()", {"lookupByName", "state"}),
        ("one.suspend()", {"suspend"}),
        ("polled.state", set()),
        ("_LOGGER.info('so many')", set()),
        ("libvirt.openAuth(uri, [])", {"openAuth"}),
        ("libvirt_qemu.qemuMonitorCommand(domain, '', 0)", {"qemuMonitorCommand"}),
        ("import libvirt; libvirt.open(uri)", {"open"}),
        ("import uuid; uuid.UUID(text)", set()),
        ("libvirt.VIR_ERR_NO_DOMAIN", set()),
        ("libvirt.libvirtError('')", set()),
    ],
)
def test_a_call_is_found_however_it_is_written(code: str, found: set[str]) -> None:
    assert calls_in(ast.parse(code)) == found


@pytest.mark.parametrize(
    "code",
    [
        "for one in connection.listAllDomains():\n    one.info()",
        "[one.info() for one in connection.listAllDomains()[:5]]",
        "vm = connection.lookupByUUIDString(uuid)",
        "(vm := connection.lookupByName(name))",
    ],
)
def test_a_vm_of_another_name_is_found(code: str) -> None:
    assert misnamed(ast.parse(code)) == [1]
    assert misnamed(ast.parse(code.replace("one", "domain").replace("vm ", "domain "))) == []
