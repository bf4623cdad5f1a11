"""Who reads JSON, YAML or TOML of others takes nesting without end for what it is: text that can't be read, not a defect."""

from __future__ import annotations

import ast
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from virtflow.adapter.kubernetes.events import WatchEndedError, event, listed
from virtflow.adapter.kubernetes.front_proxy import FrontProxyError, front_proxy_of
from virtflow.producer.hypervisor.qemu_events import status_of
from virtflow.runtime.access.web_config import read
from virtflow.runtime.kafka.oauth import parsed

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = tuple(
    path.parent for path in sorted(ROOT.glob("*/__init__.py")) if path.parent.name not in {"bench", "tests", "tools", "scripts"}
)
READERS: Final = {"json.loads", "json.load", "msgspec.json.decode", "yaml.load", "yaml.safe_load", "tomllib.loads", "tomllib.load"}
DECODERS: Final = "msgspec.json.Decoder"
OWN: Final = {
    "cli/output/rows.py": "the database's own JSON, of at most as many levels as it reads",
    "exporter/api/questions.py": "an answer that was made the moment before",
    "history/maintenance/verify.py": "the tables' log",
    "history/remote_read/api.py": "the engine that is a process of ours",
    "history/writer/table_writer.py": "the tables' log",
    "schemas/avro/shipped.py": "files of this package",
    "adapter/kubernetes/front_proxy.py:_words": "called where it is caught",
}
"""Files, or functions as FILE:FUNCTION, that read what virtflow itself wrote, or that a caller guards."""


def readings(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Each call that reads: its function, its line, and whether ``RecursionError`` is caught around it."""
    decoders = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and DECODERS in ast.unparse(node.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    yield from _within(tree, {*READERS, *(f"{name}.decode" for name in decoders)}, "", caught=False)


def _within(node: ast.AST, readers: set[str], function: str, *, caught: bool) -> Iterator[tuple[str, int, bool]]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) in readers:
        yield function, node.lineno, caught
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = node.name
    if isinstance(node, ast.With):
        caught = caught or any("RecursionError" in ast.unparse(item) for item in node.items)
    if isinstance(node, ast.Try):
        inside = caught or any("RecursionError" in ast.unparse(handler.type) for handler in node.handlers if handler.type)
        for statement in node.body:
            yield from _within(statement, readers, function, caught=inside)
        rest: list[ast.AST] = [*node.handlers, *node.orelse, *node.finalbody]
    else:
        rest = [*ast.iter_child_nodes(node)]
    for child in rest:
        yield from _within(child, readers, function, caught=caught)


def test_nesting_without_end_is_caught_wherever_others_text_is_read() -> None:
    bare, used = [], set()
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for function, line, caught in readings(ast.parse(path.read_text())):
                if excused := {name, f"{name}:{function}"} & OWN.keys():
                    used |= excused
                elif not caught:
                    bare.append(f"{name}:{line}")
    assert bare == []
    assert used == OWN.keys()


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ("json.loads(x)", False),
        ("try:\n    json.loads(x)\nexcept ValueError:\n    pass", False),
        ("try:\n    json.loads(x)\nexcept (ValueError, RecursionError):\n    pass", True),
        ("try:\n    pass\nexcept RecursionError:\n    json.loads(x)", False),
        ("with suppress(RecursionError):\n    json.loads(x)", True),
        ("d: Final = msgspec.json.Decoder(X)\nd.decode(x)", False),
    ],
)
def test_the_test_sees_it(code: str, caught: bool) -> None:  # noqa: FBT001, a parameter
    assert [found for _, _, found in readings(ast.parse(code))] == [caught]


NESTED: Final = b'{"x":' * 100_000


def test_it_is_text_that_can_not_be_read(tmp_path: Path) -> None:
    """Of a token, a web configuration, and of what QEMU says."""
    assert parsed(f"head.{urlsafe_b64encode(NESTED).decode()}.tail").claims == {}
    assert status_of(NESTED.decode()) == ""
    file = tmp_path / "web.yml"
    file.write_text("[" * 20_000)
    _, errors = read(file)
    assert [error.key for error in errors] == ["(whole file)"]


@pytest.mark.parametrize(("reader", "error"), [(front_proxy_of, FrontProxyError), (listed, WatchEndedError), (event, WatchEndedError)])
def test_an_answer_of_the_cluster_that_can_not_be_read(reader: Callable[[bytes], object], error: type[Exception]) -> None:
    with pytest.raises(error, match="can't be read"):
        reader(NESTED)
