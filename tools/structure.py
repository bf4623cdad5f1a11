"""What the code's structure measures: modules by room, arrows, lines of functions and files. Of this checkout, or of it and an older commit.

    python -m tools.structure                    this checkout
    python -m tools.structure --before COMMIT    the commit as well, from a worktree that is removed again

Counted is what people write of the packages: no generated modules, no ``__init__``. A room is a folder. A function's lines are those from ``def``
to its end, its docstring with them; those of functions inside another one count for both.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.documents import table
from tools.import_picture import PACKAGES, ROOT
from tools.older_commit import checkout_of

Arrow = tuple[str, str]
"""Who imports, and what is imported: two modules or two rooms, as paths."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What was counted: modules by room, arrows between modules, lines of each function and of each module."""

    rooms: Counter[str]
    arrows: frozenset[Arrow]
    functions: tuple[int, ...]
    modules: tuple[int, ...]

    def figures(self) -> dict[str, str]:
        """Each figure by its name."""
        fullest, most = self.rooms.most_common(1)[0]
        between = {(room_of(source), room_of(target)) for source, target in self.arrows if room_of(source) != room_of(target)}
        within = sum(room_of(source) == room_of(target) == fullest for source, target in self.arrows)
        functions, modules = sorted(self.functions), sorted(self.modules)
        return {
            "rooms": str(len(self.rooms)),
            "modules": str(self.rooms.total()),
            "modules in the fullest room": f"{most} (`{fullest}/`)",
            "arrows between modules of that room": str(within),
            "arrows between rooms": str(len(between)),
            "lines": str(sum(modules)),
            "lines of a module: median, 95th percentile, most": _shares(modules),
            "functions": str(len(functions)),
            "lines of a function: median, 95th percentile, most": _shares(functions),
        }


def _shares(ordered: Sequence[int]) -> str:
    """Median, 95th percentile and most."""
    return ", ".join(str(ordered[min(len(ordered) - 1, len(ordered) * share // 100)]) for share in (50, 95, 100))


def room_of(module: str) -> str:
    """The folder of a module."""
    return module.rpartition("/")[0]


def measured(root: Path) -> Structure:
    """The structure of a checkout's packages."""
    paths = {path.relative_to(root).as_posix(): path for path in written(root)}
    trees = {name: ast.parse(path.read_text()) for name, path in paths.items()}
    return Structure(
        Counter(room_of(name) for name in paths),
        frozenset((name, module) for name, tree in trees.items() for module in imported(root, tree) if module != name),
        tuple(lines for tree in trees.values() for lines in function_lines(tree)),
        tuple(len(path.read_text().splitlines()) for path in paths.values()),
    )


def written(root: Path) -> Iterator[Path]:
    """The modules that people write."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if not path.stem.startswith("__") and not path.stem.endswith("_generated"):
                yield path


def imported(root: Path, tree: ast.Module) -> Iterator[str]:
    """The modules of ours that a module imports, wherever in it; of a package that is imported its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            place = name.removeprefix("virtflow.").replace(".", "/")
            if re.fullmatch(r"virtflow(\.\w+)+", name) and (root / place).with_suffix(".py").is_file():
                yield f"{place}.py"


def function_lines(tree: ast.Module) -> Iterator[int]:
    """How many lines each function has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def before(commit: str) -> Structure:
    """The structure of a commit."""
    with checkout_of(commit) as place:
        return measured(place)


def main() -> None:
    """Count and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.structure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", metavar="COMMIT", help="count this commit as well")
    words = parser.parse_args()
    columns = [before(words.before).figures()] if words.before else []
    columns.append(measured(ROOT).figures())
    headings = ("", "before", "now") if words.before else ("", "now")
    print(table(headings, [(name, *(column[name] for column in columns)) for name in columns[-1]]))


if __name__ == "__main__":
    main()
