"""Every code block of the documentation is run, or read by the program that it is meant for."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.contract.test_deploy import unknown_names
from tests.support.command import environment
from tests.support.doc_blocks import ROOT, Block, all_blocks, blocks_of
from tests.support.history import fleet_inventories, fleet_samples
from virtflow.history.maintenance.run import maintain
from virtflow.history.query.sql import Query
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import INVENTORY_ROWS, SAMPLES, TABLES
from virtflow.history.writer.dedup import Changes, Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.access.web_config import read as read_web_config
from virtflow.runtime.configuration import load, rows
from virtflow.runtime.settings import History
from virtflow.schemas.catalogue.scaling import BY_SCALING_NAME
from virtflow.schemas.errors import InputError
from virtflow.schemas.records import VmMetrics

DAY: Final = 86_400
HOUR: Final = 3_600
RUN_ELSEWHERE: Final = {
    "python spark": "tests/integration/test_history_spark.py",
    "python spark from_avro": "tests/integration/test_history_spark.py",
    "flink": "tests/integration/test_stream_engines.py",
    "properties apicurio": "tests/integration/test_stream_engines.py",
    "properties oauthbearer": "tests/support/token_server.py",
    "sh acls": "tests/integration/test_secure_page.py",
    "sh from-clone": "tests/integration/test_deploy_page.py",
    "sh install": "tests/integration/test_deploy_page.py",
    "sh secret": "tests/integration/test_install_fleet.py",
    "sh topics": "tests/integration/test_secure_page.py",
    "sh up": "tests/integration/test_deploy_page.py",
    "toml password producer": "tests/integration/test_secure_page.py",
    "toml password shared": "tests/integration/test_secure_page.py",
    "toml token producer": "tests/integration/test_secure_page.py",
    "toml token shared": "tests/integration/test_secure_page.py",
    "toml web-rights": "tests/integration/test_secure_page.py",
    "yaml scrape certificate": "tests/integration/test_web_prometheus.py",
    "yaml scrape password": "tests/integration/test_web_prometheus.py",
    "yaml scrape token": "tests/integration/test_web_prometheus.py",
    "yaml web-config": "tests/integration/test_web_prometheus.py",
    "yaml web-config mtls": "tests/integration/test_web_prometheus.py",
}
"""Blocks that need a program of their own, by the words of their fences, and the test that runs each."""
WHOLE_PAGES: Final = ("docs/deploy.md", "docs/secure.md")
"""Pages of which no block is only read."""

BLOCKS: Final = all_blocks()


def of(*languages: str) -> pytest.MarkDecorator:
    """The test once for each block of the languages."""
    found = [block for block in BLOCKS if block.language in languages]
    assert found, languages
    return pytest.mark.parametrize("block", found, ids=str)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of two simulated VMs over the last hours of yesterday, rolled up; every table is there."""
    path = tmp_path_factory.mktemp("tables") / "history"
    settings = History(path=str(path))
    store = Store(settings)
    opened = {table.name: store.make(table) for table in TABLES}
    start = float(int(time.time()) // DAY * DAY - 2 * HOUR)
    samples, inventory = TableWriter(opened[SAMPLES.name], Sequences()), TableWriter(opened[INVENTORY_ROWS.name], Changes())
    for writer, records in (
        (samples, fleet_samples(1, 2, range(12), interval=600.0, start=start)),
        (inventory, fleet_inventories(1, 2, start=start)),
    ):
        writer.begin(["p"])
        for offset, record in enumerate(records):
            writer.take("p", offset, record)
        writer.commit()
    maintain(settings, lambda *_: None)
    return path


def test_every_block_says_its_language_and_somebody_reads_it() -> None:
    """A block of another language is one that no test would look at, unless the page says why."""
    bad = [str(block) for block in BLOCKS if not block.excused and block.language not in CHECKS and not _compared(block)]
    assert not bad


def _compared(block: Block) -> bool:
    """Whether it is output on a generated page, which is compared with what generates it."""
    return block.language == "text" and block.generated


def test_few_blocks_are_excused() -> None:
    """What nothing here can run is a short list; whoever makes it longer says so here, too."""
    assert sorted(block.language for block in BLOCKS if block.excused) == ["clickhouse", "ksql", "properties", *["sh"] * 4]
    assert all("docker" in block.text for block in BLOCKS if block.excused and block.language == "sh")


@pytest.mark.parametrize("page", WHOLE_PAGES)
def test_every_block_of_the_page_is_run(page: str) -> None:
    """By a test that takes it from the page."""
    found = [block for block in BLOCKS if block.page == page]
    assert len(found) > 8
    assert [str(block) for block in found if not block.excused and not run_elsewhere(block)] == []


def check_shell(block: Block) -> None:
    """It is correct shell; the command lines of ours in it are parsed in test_commands.py."""
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in re.findall(r"(?<![\w./-])((?:scripts|deploy|docs|tools|bench|tests)/[\w./-]+)", block.text):
        assert (ROOT / path).exists(), f"{block}: there is no {path}"


def check_toml(block: Block, folder: Path) -> None:
    """Our own reader takes it, each key and each value."""
    file = folder / "virtflow.toml"
    file.write_text(block.text)
    load(file, {}, {})


def check_yaml(block: Block, folder: Path) -> None:
    """Parsed; what is Prometheus' is judged by promtool."""
    parsed = yaml.safe_load(block.text)
    assert isinstance(parsed, dict)
    file = folder / "prometheus.yml"
    file.write_text(block.text)
    if "groups" in parsed:
        promtool("check", "rules", str(file))
        assert not unknown_names(block.text)
    elif set(parsed) & {"scrape_configs", "remote_read", "rule_files", "global"}:
        promtool("check", "config", "--syntax-only", str(file))
    elif set(parsed) <= {"tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"}:
        _, errors = read_web_config(file)
        assert not errors, f"{block}: {errors}"
    elif set(parsed) == {"hypervisors"}:
        # Ansible itself takes it in tests/integration/test_ansible.py.
        defaults = yaml.safe_load((ROOT / "deploy/ansible/roles/virtflow_producer/defaults/main.yml").read_text())
        assert set(parsed["hypervisors"]["vars"]) <= set(defaults)
    elif {"apiVersion", "kind"} <= set(parsed):
        # An API server judges it in tests/integration/test_adapter.py.
        assert set(re.findall(r"\bvm_\w+", block.text)) <= set(BY_SCALING_NAME), block
    else:
        pytest.fail(f"{block}: whose settings are these?")


def promtool(*words: str) -> None:
    """Fails with promtool's own complaint."""
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions(text: str) -> list[str]:
    """Queries are separated by comments; one that goes on in the next line is indented there."""
    joined = re.sub(r"\n +", " ", re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    return [line for line in joined.splitlines() if line.strip()]


def check_promql(block: Block, folder: Path) -> None:
    """The real parser takes each query, and each name in it is a metric or a recording rule of ours."""
    queries = expressions(block.text)
    assert queries
    for query in queries:
        assert not unknown_names(query), f"{block}: {query}"
    file = folder / "rules.yml"
    recorded = [{"record": f"doc:query:{number}", "expr": query} for number, query in enumerate(queries)]
    file.write_text(yaml.safe_dump({"groups": [{"name": "docs", "rules": recorded}]}))
    promtool("check", "rules", str(file))


def check_sql(block: Block, history: Path) -> None:
    """It is answered by a real history, with at least one row."""
    assert answered(block.text, history), block


def answered(sql: str, history: Path) -> int:
    """How many rows the history has for a query; raises what `virtflow history query` would print."""
    settings = History(path=str(history))
    with Query(Store(settings), settings) as tables:
        return int(tables.run(sql).num_rows)


def check_python(block: Block, history: Path) -> None:
    """It runs on a real history and finds both VMs; what needs more than Python is compiled here and run by the test that is named."""
    compile(block.text, str(block), "exec")
    if run_elsewhere(block):
        return
    command = [sys.executable, "-c", block.text.replace("HISTORY", str(history))]
    done = subprocess.run(command, env=environment() | {"PYTHONPATH": ""}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    known = {(sample.name, sample.uuid) for sample in fleet_samples(1, 2, range(1))}
    assert all(name in done.stdout or uuid[:8] in done.stdout for name, uuid in known), done.stdout


def check_ini(block: Block) -> None:
    """A unit's drop-in: it has sections, and the variables that it sets are ours."""
    parser = configparser.ConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as the standard library documents it
    parser.read_string(block.text)
    variables = re.findall(r"^Environment=(VIRTFLOW_\w+)", block.text, re.MULTILINE)
    assert set(variables) <= {row.variable for row in rows()}


def check_json(block: Block) -> None:
    """Parsed."""
    json.loads(block.text)


MERMAID: Final = (
    r"flowchart (?:LR|TD|TB)",
    r"subgraph \w+ ?\[\"[^\"]+\"\]",
    r"end",
    r"\w+(?:\[\"[^\"]+\"\]|\[\(\"[^\"]+\"\)\])?",
    r"\w+ (?:-->|-\.->)(?:\|[^|]+\|)? \w+",
)
"""The few forms of Mermaid's flow charts that the pages use; every name is a plain word, every text is quoted."""


def check_mermaid(block: Block) -> None:
    """Each line is of a known form, what is opened is closed, and arrows join boxes that there are."""
    lines = [line.strip() for line in block.text.splitlines() if line.strip()]
    assert lines[0].startswith("flowchart ")
    for line in lines:
        assert any(re.fullmatch(form, line) for form in MERMAID), f"{block}: {line}"
    assert sum(line.startswith("subgraph ") for line in lines) == lines.count("end")
    arrows = [re.fullmatch(MERMAID[-1], line) for line in lines]
    ends = {name for line, arrow in zip(lines, arrows, strict=True) if arrow for name in re.findall(r"^\w+|\w+$", line)}
    boxes = {line.split("[")[0].removeprefix("subgraph ").strip() for line, arrow in zip(lines, arrows, strict=True) if not arrow}
    assert ends <= boxes, f"{block}: {ends - boxes}"


def run_elsewhere(block: Block) -> bool:
    """Whether a test with the program itself runs it: that test takes it from the page."""
    words = " ".join([block.language, *block.tags])
    if words not in RUN_ELSEWHERE:
        return False
    assert f'"{words}"' in (ROOT / RUN_ELSEWHERE[words]).read_text(), f"{block}: {RUN_ELSEWHERE[words]} does not run it"
    return True


def check_stream(block: Block) -> None:
    """For an engine that reads topics: another test runs it, or the page says why none does; the columns that it names are a sample's own."""
    assert block.excused or run_elsewhere(block), f"{block}: the line before says (Not run here: why)"
    fields = {*VmMetrics.__struct_fields__}
    for columns in re.findall(r"\(((?:\w+ [A-Za-z]\w+(?: KEY)?(?:, )?)+)\)", block.text):
        assert {column.split()[0] for column in columns.split(", ")} <= fields, block


CHECKS: Final[dict[str, Callable[..., None]]] = {
    "sh": check_shell,
    "toml": check_toml,
    "yaml": check_yaml,
    "promql": check_promql,
    "sql": check_sql,
    "python": check_python,
    "ini": check_ini,
    "json": check_json,
    "mermaid": check_mermaid,
    "clickhouse": check_stream,
    "flink": check_stream,
    "ksql": check_stream,
    "properties": check_stream,
}
"""Who reads the blocks of a language."""

ON_HISTORY: Final = ("sql", "python")
WITH_A_FOLDER: Final = ("toml", "yaml", "promql")


@of(*ON_HISTORY)
def test_it_runs_on_a_real_history(block: Block, history: Path) -> None:
    CHECKS[block.language](block, history)


@of(*WITH_A_FOLDER)
def test_its_program_takes_it(block: Block, tmp_path: Path) -> None:
    CHECKS[block.language](block, tmp_path)


@of(*(language for language in CHECKS if language not in {*ON_HISTORY, *WITH_A_FOLDER}))
def test_it_is_well_formed(block: Block) -> None:
    CHECKS[block.language](block)


QUERIES: Final = [
    pytest.param(sql, id=f"{block}-{number}")
    for block in BLOCKS
    if block.language == "sh"
    for number, sql in enumerate(re.findall(r'virtflow history query(?: --[\w-]+(?: \S+)?)*? "([^"]+)"', block.text))
]


@pytest.mark.parametrize("sql", QUERIES)
def test_queries_in_command_lines_are_answered(sql: str, history: Path) -> None:
    """Whatever day a page names, the columns and tables are there."""
    answered(sql, history)


BAD: Final[dict[str, str]] = {
    "sh": "if true; then\n",
    "toml": "[exporter]\nlabel_value_byte = 200\n",
    "yaml": "scrape_configs:\n  - job: virtflow\n",
    "promql": "sum by (uuid) rate(vm_cpu_seconds_total[2m]))\n",
    "sql": "SELECT no_such_column FROM hourly\n",
    "python": "import no_such_module\n",
    "ini": "[Service]\nEnvironment=VIRTFLOW_NO_SUCH=1\n",
    "json": "{'a': 1}\n",
    "mermaid": 'flowchart LR\na["a"]\na --> b\n',
    "clickhouse": "CREATE TABLE queue (uuid String, cpu_second Float64)\n",
}


@pytest.mark.parametrize("language", BAD)
def test_a_bad_block_is_found(language: str, tmp_path: Path, history: Path) -> None:
    """No check above is blind."""
    page = f"(Not run here: this is a test of the test.)\n```{language}\n{BAD[language]}```\n"
    (block,) = blocks_of("page.md", page)
    given: list[Any] = [history] if language in ON_HISTORY else [tmp_path] if language in WITH_A_FOLDER else []
    with pytest.raises((AssertionError, InputError, ValueError)):
        CHECKS[language](block, *given)


def test_a_name_that_is_no_metric_is_found(tmp_path: Path) -> None:
    (block,) = blocks_of("page.md", "```promql\nrate(vm_cpu_second_total[2m])\n```\n")
    with pytest.raises(AssertionError, match="vm_cpu_second_total"):
        check_promql(block, tmp_path)


def test_blocks_are_found_wherever_they_stand() -> None:
    """Indented below a list's item, with tags, without a language, and one that nobody closed."""
    text = "a\n  ```python duckdb\n  x = 1\n  ```\n```\nplain\n```\nWhy.\n\n~~~sh\ntrue\n"
    found = [(block.line, block.language, block.tags, block.text, block.before) for block in blocks_of("p", text)]
    assert found == [(2, "python", ("duckdb",), "x = 1\n", "a"), (5, "", (), "plain\n", "  ```"), (10, "sh", (), "true\n", "Why.")]
