"""The layout is a promise: which folder may import which, and that no module is a junk drawer."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.schedule import COMPUTING, SECONDS
from tools.import_picture import PACKAGES as PICTURE_PACKAGES
from tools.import_picture import Edges, edges_between, modules_by_room, of_packages, reduced

ROOT = Path(__file__).resolve().parents[2]

ALLOWED: dict[str, frozenset[str]] = {
    "schemas": frozenset(),
    "runtime": frozenset({"schemas"}),
    "producer": frozenset({"schemas", "runtime"}),
    "processors": frozenset({"schemas", "runtime"}),
    "exporter": frozenset({"schemas", "runtime"}),
    "adapter": frozenset({"schemas", "runtime", "exporter"}),
    "history": frozenset({"schemas", "runtime"}),
    "node": frozenset({"schemas", "runtime", "producer", "processors", "exporter"}),
    "cli": frozenset({"schemas", "runtime", "producer", "processors", "exporter", "adapter", "history", "node"}),
}

CENTRE_ONLY = ("deltalake", "pyarrow", "duckdb", "numpy", "aiohttp", "faust", "mode", "isal", "prometheus_client", "rich", "aiokafka")


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    return tuple(_imports(path))


@cache
def edges() -> Edges:
    """Every arrow between rooms: not at import, since each worker imports all tests and one runs these."""
    return edges_between(PICTURE_PACKAGES)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    """A folder imports only what its line in docs/architecture.md allows."""
    seen = 0
    for path in sources(package):
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "virtflow":
                seen += 1
                assert parts[1] in ALLOWED[package] | {package}, f"{path.relative_to(ROOT)} imports {module}"
    assert seen


def test_only_the_process_apart_speaks_with_guests() -> None:
    """Its modules are imported by nobody else, and a connection that may write is opened by it and the opt-in status alone."""
    apart = {"worker", "queries"}
    openers = set()
    for path in sources("producer"):
        own = path.parent.name == "agent" and path.stem in {*apart, "__main__"}
        for module in imports(path):
            assert own or module.removeprefix("virtflow.producer.agent.") not in apart, f"{path.relative_to(ROOT)} imports {module}"
        if re.search(r"\blibvirt\.open\(", path.read_text()):
            openers.add(path.stem)
    assert openers == {"worker", "qemu_events"}


IMPURE = (
    "os",
    "time",
    "datetime",
    "io",
    "pathlib",
    "select",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "asyncio",
    "libvirt",
)
"""Modules by which a clock is read, a file opened or a thread started. Types alone need none of them."""


def pure_rooms() -> list[str]:
    """Those that docs/architecture.md calls pure without an exception."""
    rows = re.findall(r"^\| `([\w/]+)/`, \d+ \| (.*) \|$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    return [room for room, about in rows if re.search(r"(^Pure:|Pure\.$)", about)]


@pytest.mark.parametrize("room", pure_rooms())
def test_pure_rooms_have_no_clock_and_no_files(room: str) -> None:
    """What they need of either is handed in."""
    for path in sources(room):
        assert [module for module in imports(path) if module.partition(".")[0] in IMPURE] == [], path
        calls = {
            node.func.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"open", "input", "print"}, path


def test_the_records_of_a_round_are_pure() -> None:
    assert "producer/records" in pure_rooms()


def test_every_folder_with_code_is_held() -> None:
    """A new top-level package must be given its place first."""
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(ALLOWED)


def test_the_wheel_has_every_room() -> None:
    """Setuptools packs the packages that are listed, and says nothing of one that is not: it would be missing where virtflow is installed."""
    rooms = {path.parent for package in PICTURE_PACKAGES for path in (ROOT / package).rglob("__init__.py")}
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    paths = {".".join(("virtflow", *room.relative_to(ROOT).parts)): room.relative_to(ROOT).as_posix() for room in rooms}
    assert set(packed["packages"]) - {"virtflow"} == paths.keys()
    assert {name: path for name, path in packed["package-dir"].items() if name != "virtflow"} == paths


def test_architecture_page_names_the_same_edges() -> None:
    """docs/architecture.md says what this test holds."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)/` \|[^|]*\| ([^|]*) \|$", page, re.MULTILINE))
    assert {name: frozenset(re.findall(r"`(\w+)`", cell)) for name, cell in rows.items() if name in ALLOWED} == ALLOWED


def test_hops_in_the_architecture_page_exist() -> None:
    """Each hop of the metric's way is a real function of a real module, in under ten hops."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    hops = re.findall(r"^\d+\. `([\w/]+)\.py` · `([\w.]+)`", page, re.MULTILINE)
    assert 5 <= len(hops) < 10
    for module, name in hops:
        assert name in _definitions(ROOT / f"{module}.py"), f"{module}.py has no {name}"


def _definitions(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)}
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_files_stay_readable(package: str) -> None:
    """No file that people write is over 420 lines, none is a junk drawer, and few functions are long."""
    lengths = []
    for path in sources(package):
        assert path.stem not in {"utils", "helpers", "common", "base", "manager"}, path
        if path.stem.endswith("_generated"):
            continue
        text = path.read_text()
        assert len(text.splitlines()) <= 420, path
        lengths += [
            (node.end_lineno or node.lineno) - node.lineno + 1
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    if package != "schemas":
        assert sorted(lengths)[int(len(lengths) * 0.95) - 1] <= 45


ROOM: int = 12
"""Modules that a room may have on one level; a newcomer reads a list of that length."""


def test_no_room_is_too_full() -> None:
    """More modules than that need a room of their own."""
    assert {room: count for room, count in modules_by_room().items() if count > ROOM} == {}


def test_the_picture_of_the_imports_is_read_off_the_code() -> None:
    """Every arrow between packages is one that is allowed, and a way over others leads wherever an arrow was left out."""
    assert set(PICTURE_PACKAGES) == set(ALLOWED)
    arrows = of_packages(edges())
    assert arrows <= {(source, target) for source, targets in ALLOWED.items() for target in targets}
    assert ("cli", "history") in arrows  # loaded by its name as text
    shown = reduced(arrows)
    assert shown < arrows

    def reach(start: str) -> set[str]:
        return {end for source, target in shown if source == start for end in {target} | reach(target)}

    assert all(target in reach(source) for source, target in arrows)


WITH_ROOMS = [package for package in PICTURE_PACKAGES if list((ROOT / package).glob("*/__init__.py"))]


@pytest.mark.parametrize("package", WITH_ROOMS)
def test_rooms_import_one_way(package: str) -> None:
    """No two rooms of a package import each other, directly or over others; a package's own modules join its rooms."""
    inner = {(source, target) for source, target in edges() if source.startswith(f"{package}/") and target.startswith(f"{package}/")}

    def reach(start: str, seen: frozenset[str] = frozenset()) -> set[str]:
        ends = {target for source, target in inner if source == start} - seen
        return ends.union(*(reach(end, seen | ends) for end in ends))

    assert inner
    assert [room for room in sorted({source for source, _ in inner}) if room in reach(room)] == []


def test_one_place_per_service_catches_everything() -> None:
    """A bare ``except Exception`` stands at most once in a package: at the top of its service's loop."""
    for package in ALLOWED:
        found = [p.name for p in sources(package) for _ in re.findall(r"except (?:Base)?Exception\b", p.read_text())]
        assert len(found) <= 1, f"{package}: {found}"


def test_producer_imports_nothing_of_the_centre() -> None:
    """What a producer loads, measured in a fresh interpreter: none of the centre's packages, and no socket server."""
    code = (
        "import sys; import virtflow.producer.service, virtflow.cli.main; "
        f"print([m for m in {CENTRE_ONLY!r} if m in sys.modules] + [m for m in sys.modules if m.startswith('virtflow.exporter') "
        "or m.startswith('virtflow.processors')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env={"PYTHONPATH": str(ROOT / ".types")}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_schedule_names_files_that_exist() -> None:
    assert [name for name in {*SECONDS, *COMPUTING} if not (ROOT / name).is_file()] == []
