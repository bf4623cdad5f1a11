"""PromQL by tenant: whatever is asked, the answer is that of a history which has that tenant's records and no others."""

from __future__ import annotations

import json
import math
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import asdict

from tests.support.history_serving import Server, serving
from tests.support.history_tenants import ROUNDS, owner_of, project_of, tenants_of, write_records, write_tenants
from tests.support.long import length
from virtflow.schemas.records import VmInventory, VmMetrics

START: Final = float(int(time.time()) // 3_600 * 3_600 - 3 * 3_600)
END: Final = START + ROUNDS * 60
QUERIES: Final = length(300, 10_000)
METRICS: Final = ("vm_state", "vm_info", "vm_state_info", "vm_cpu_seconds_total", "vm_memory_rss_bytes", "vm_block_read_bytes_total")
NAMES: Final = ("uuid", "name", "project", "project_id", "namespace", "device", "state", "vcpu", "__name__", "nosuch")
ROLLED: Final = ("label/device/values", "label/vcpu/values")
Answer = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """A history of all tenants, and what was written into it."""

    path: Path
    samples: list[VmMetrics]
    inventories: list[VmInventory]

    def of(self, tenant: str) -> tuple[list[VmMetrics], list[VmInventory]]:
        """The records of the time in which a VM was the tenant's."""
        samples = [each for each in self.samples if owner_of(self.inventories, each.uuid, each.collected) == tenant]
        return samples, [each for each in self.inventories if project_of(each) == tenant]

    def words(self) -> set[str]:
        """All that tells VMs and projects apart."""
        found = {str(value) for each in self.inventories for value in asdict(each).values() if isinstance(value, str)}
        return {word for word in found | {each.uuid for each in self.samples} | {each.name for each in self.samples} if len(word) > 3}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    path = tmp_path_factory.mktemp("tenants") / "history"
    return Written(path, *write_tenants(path, START))


class Dice:
    """Random PromQL, of words of everybody."""

    def __init__(self, seed: object, words: list[str]) -> None:
        """The same queries for a seed."""
        self._rng = random.Random(repr(seed))  # noqa: S311, the same queries every time
        self._words = [*words, ".*", ".+", "", "[0-9a-f-]+", "vd.", "running", "web.*|.*"]

    def _one(self, *of: str) -> str:
        return self._rng.choice(of)

    def selector(self) -> str:
        matchers = [
            f'{self._one(*NAMES)}{self._one("=", "!=", "=~", "!~")}"{self._rng.choice(self._words)}"' for _ in range(self._rng.randrange(3))
        ]
        if self._rng.random() < 0.1:
            return "{" + ",".join(['__name__=~"vm_(state|info).*"', *matchers]) + "}"
        return (
            self._one(*METRICS) + "{" + ",".join(matchers) + "}" + self._one("", "", " offset 7m", " offset -9m", f" @ {START + 4_000:.0f}")
        )

    def vector(self, depth: int = 0) -> str:
        """An expression of instant vectors."""
        if depth > 2:
            return self.selector()
        inner, by = self.vector(depth + 1), ", ".join(self._rng.sample(NAMES[:-2], 2))
        matcher = self._one("", 'uuid!=""', 'project=~".*"')
        ranged = f"{self._one(*METRICS)}{{{matcher}}}[{self._one('5m', '40m', '2h')}]"
        ranged = self._one(ranged, f"({inner})[20m:3m]")
        return self._one(
            self.selector(),
            f"{self._one('rate', 'increase', 'last_over_time', 'count_over_time', 'present_over_time', 'changes', 'max_over_time')}({ranged})",
            f"{self._one('sum', 'count', 'max', 'min', 'group')} {self._one('by', 'without')} ({by}) ({inner})",
            f"{self._one('sum', 'count')}({inner})",
            f'count_values("found", {inner})',
            # Which of equal values are the least is left to the engine, so it is asked where no two are equal, and else how many.
            f"{self._one('topk', 'bottomk')}(2, vm_cpu_seconds_total)",
            f"count({self._one('topk', 'bottomk')}(2, {inner}))",
            f'label_replace({inner}, "copied", "$1", "{self._one(*NAMES[:-2])}", "{self._one("(.*)", "(.).*", ".*(..)")}")',
            f'label_join({inner}, "joined", "-", "{self._one(*NAMES[:-2])}", "{self._one(*NAMES[:-2])}")',
            f"({inner}) {self._one('and', 'or', 'unless')} {self._one('', 'on (uuid) ', 'ignoring (name) ', 'on () ')}({self.vector(depth + 1)})",
            f"vm_state * on (uuid) group_left ({by}) vm_info",
            f"{self._one('vm_memory_rss_bytes', 'vm_cpu_seconds_total')} * on (uuid) group_left (project, name) max by (uuid, project, name) ({inner})",
            f"absent({self.selector()})",
            f"absent_over_time({ranged})",
            f"vector(scalar({inner}))",
            f"timestamp({inner})",
            f"sort_desc({inner})",
            f"quantile by ({by}) (0.5, {inner})",
        )

    def request(self) -> tuple[str, list[tuple[str, str]]]:
        """A path of the HTTP API and its parameters."""
        at = START + self._rng.uniform(-1_800, ROUNDS * 60 + 600)
        ends = [("start", f"{at:.3f}"), ("end", f"{min(at + self._rng.uniform(0, 7_200), END):.3f}")] if at < END else []
        match = [("match[]", self.selector().partition(" ")[0]) for _ in range(self._rng.randrange(1, 3))]
        kind = self._rng.random()
        if kind < 0.5:
            return "query", [("query", self.vector()), ("time", f"{at:.3f}")]
        if kind < 0.75 and ends:
            return "query_range", [("query", self.vector()), *ends, ("step", self._one("60", "300", "1000"))]
        values = f"label/{self._one(*NAMES)}/values"
        return self._rng.choice(
            [
                ("series", [*match, *ends]),
                ("labels", [*match, *ends]),
                ("labels", ends),
                (values, [*match, *ends]),
                (values, ends),
                ("metadata", []),
            ]
        )


def ask(server: Server, path: str, parameters: list[tuple[str, str]], headers: dict[str, str] | None = None) -> tuple[Answer, str]:
    """Status and answer, and the answer's text."""
    url = f"http://127.0.0.1:{server.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=60) as reply:
            status, text = reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read().decode()
    return (status, json.loads(text)), text


def plain(found: Any) -> Any:  # noqa: ANN401, whatever JSON holds
    """Without what stands in another order, or differs in the last digits of a sum; an error's text names series in any order."""
    if isinstance(found, dict) and found.get("status") == "error":
        return found["errorType"]
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items()}
    if isinstance(found, list) and len(found) == 2 and isinstance(found[1], str) and isinstance(found[0], int | float):
        value = float(found[1])
        return [found[0], f"{value:.9g}" if math.isfinite(value) else found[1]]
    if isinstance(found, list | tuple):
        return sorted((plain(each) for each in found), key=lambda each: json.dumps(each, sort_keys=True))
    return re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", found) if isinstance(found, str) else found


@contextmanager
def both(written: Written, tenant: str, folder: Path) -> Iterator[tuple[Server, Server]]:
    """The server of all tenants, and one of a history of this tenant alone, which knows no tenants."""
    write_records(folder / "alone", *written.of(tenant))
    tokens = folder / "tokens"
    tokens.write_text(f"secret {tenant}\n")
    (folder / "of").mkdir()
    env = {"VIRTFLOW_HISTORY_TENANT_HEADER": "X-Project", "VIRTFLOW_HISTORY_TENANT_TOKENS_FILE": str(tokens)}
    with serving(written.path, folder, env) as of_all, serving(folder / "alone", folder / "of") as alone:
        yield of_all, alone


def test_random_promql_sees_one_tenant_s_records_alone(written: Written, tmp_path: Path) -> None:
    """Compared with the history of that tenant alone, counts and absences included; no word of others is in any answer, warnings included."""
    answered, asked, shown = 0, 0, set[str]()
    # Both owners of the VM that changed hands, and a namespace.
    tenants = length(tenants_of([written.inventories[0], written.inventories[2], written.inventories[-1]]), tenants_of(written.inventories))
    for tenant in tenants:
        samples, inventories = written.of(tenant)
        own = Written(written.path, samples, inventories).words()
        foreign = re.compile("|".join(rf"(?<![\w-]){re.escape(word)}(?![\w-])" for word in sorted(written.words() - own)))
        (folder := tmp_path / str(tenants.index(tenant))).mkdir()
        dice = Dice(tenant, sorted(written.words()))
        with both(written, tenant, folder) as (of_all, alone):
            for _ in range(-(-QUERIES // len(tenants))):
                path, parameters = dice.request()
                headers = {"Authorization": "Bearer secret"} if asked % 2 else {"X-Project": tenant}
                found, text = ask(of_all, path, parameters, headers)
                wanted, _ = ask(alone, path, parameters)
                if path in ROLLED and "match[]" not in dict(parameters):
                    # Devices come from the hours, of which one in which a VM changed its owner is nobody's.
                    assert (found[0], set(found[1]["data"]) - set(wanted[1]["data"])) == (wanted[0], set()), (tenant, path, parameters)
                else:
                    assert plain(found) == plain(wanted), (tenant, path, parameters)
                leaked = {word for word in foreign.findall(text) if not any(word in value for _, value in parameters)}
                assert not leaked, (tenant, path, parameters)
                asked += 1
                answered += found[0] == 200 and bool(
                    found[1]["data"] if path not in {"query", "query_range"} else found[1]["data"]["result"]
                )
                shown |= {word for word in own if word in text}
    assert answered > QUERIES // 4
    assert {each.uuid for each in written.inventories if project_of(each) in tenants} <= shown
