"""``docs/reliability.md``: each fault with its promise, its tests as they are found in the files, and what they measured when they ran last."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.faults.rows import FAULTS, FOR_EVERY_FAULT, Fault
from tools.documents import NOTICE, table

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "docs" / "reliability.json"
FOLDER: Final = "tests/faults"
NO_TEST: Final = "none yet"


@cache
def names_in(path: str) -> tuple[str, ...]:
    """The names of a file's tests in their order, those in classes as CLASS::NAME; none where there is no such file."""
    file = ROOT / path
    return tuple(_tests(ast.parse(file.read_text()).body)) if file.is_file() else ()


def _tests(body: Iterable[ast.stmt], within: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield within + node.name
        elif isinstance(node, ast.ClassDef):
            yield from _tests(node.body, f"{node.name}::")


def own_files(fault: Fault) -> list[str]:
    """The row's own files, by their names."""
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / FOLDER).glob(f"test_{fault.number:02d}_*.py"))]


def named_tests(fault: Fault) -> dict[str, tuple[str, ...]]:
    """The row's tests by file, its own files first. ValueError where a test is named that there is not."""
    found = {path: names_in(path) for path in own_files(fault)}
    for name in fault.elsewhere:
        path, _, test = name.partition("::")
        tests = names_in(path)
        if not tests or (test and test not in tests):
            raise ValueError(f"row {fault.number}: there is no test {name}")
        found[path] = (*found.get(path, ()), test) if test else tests
    return found


def arguments(fault: Fault) -> list[str]:
    """What pytest is given to run the row's tests."""
    return [*own_files(fault), *fault.elsewhere]


def results() -> dict[str, Any]:
    """What was measured, by number of the row as text; nothing where nothing was."""
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {}


def reliability_page() -> str:
    """``docs/reliability.md``."""
    return page(results())


def page(found: Mapping[str, Any]) -> str:
    """The page of these results."""
    parts = [
        NOTICE,
        "# Faults that virtflow survives",
        (
            "Each fault is caused for real wherever it can be: a real libvirtd with real QEMUs in namespaces of their own, a real Kafka, real signals, real file "
            "systems. I is the sampling interval. CI runs shortened faults; `--long` runs them at full length."
        ),
        f"**For every fault**: {FOR_EVERY_FAULT[0].lower()}{FOR_EVERY_FAULT[1:]}",
        (
            "`scripts/reliability` runs all the tests below and writes this page with what they measured (`docs/reliability.json`); `scripts/reliability 8 21` does so for "
            "these rows and keeps the others; `scripts/reliability --from DIR` takes them from a run of `scripts/test --reports DIR`. A row without figures was not run by it since its tests measure something, or they measure nothing: passed is passed."
        ),
        table(("#", "fault", "tests", "last run"), [_summary(fault, found.get(str(fault.number))) for fault in FAULTS]),
    ]
    for fault in FAULTS:
        parts += _section(fault, found.get(str(fault.number)))
    return "\n\n".join(parts) + "\n"


def _title(fault: Fault) -> str:
    return f"{fault.number}. {fault.name}"


def _anchor(fault: Fault) -> str:
    kept = "".join(letter for letter in _title(fault).lower() if letter.isalnum() or letter in "_- ")
    return kept.replace(" ", "-")


def _summary(fault: Fault, found: Mapping[str, Any] | None) -> tuple[str, ...]:
    count = sum(map(len, named_tests(fault).values()))
    return str(fault.number), f"[{fault.name}](#{_anchor(fault)})", str(count or NO_TEST), _outcome(found)


def _outcome(found: Mapping[str, Any] | None) -> str:
    """How the last run of a row ended, in words."""
    if found is None:
        return ""
    counts = Counter(found["tests"].values())
    said = ", ".join(f"{count} {what}" for what, count in sorted(counts.items(), key=lambda one: one[0] != "failed"))
    return f"{said}, {found['date']}{', full length' if found['long'] else ''}"


def _section(fault: Fault, found: Mapping[str, Any] | None) -> list[str]:
    tests = named_tests(fault)
    lines = [
        f"## {_title(fault)}",
        f"**Cause.** {fault.cause}.",
        f"**Promise.** {fault.promise}",
        f"**Tested by.** {NO_TEST.capitalize()}." if not tests else "**Tested by**",
    ]
    if tests:
        lines.append("\n".join(_file(path, names) for path, names in tests.items()))
    if fault.note:
        lines.append(f"**Note.** {fault.note}")
    commands = [f"scripts/reliability {fault.number}" if tests else "", fault.command]
    if said := " and ".join(f"`{command}`" for command in commands if command):
        lines.append(f"**Command.** {said}")
    return lines + (_measured(found) if found else [])


def _file(path: str, names: Sequence[str]) -> str:
    return f"- `{path}`: " + ", ".join(f"`{name}`" for name in names)


def _measured(found: Mapping[str, Any]) -> list[str]:
    lines = [f"Last run: {_outcome(found)}; {found['seconds']} s; virtflow {found['version']}; {found['machine']}."]
    if found["figures"]:
        lines.append(table(("figure", "value", "measured by"), [_figure(one) for one in found["figures"]]))
    return lines


def _figure(one: Mapping[str, Any]) -> tuple[str, str, str]:
    return one["name"], f"{_number(one['value'])} {one['unit']}".strip(), f"`{one['test'].rpartition('::')[2]}`"


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"
