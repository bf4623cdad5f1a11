"""`history serve` answers Prometheus' HTTP API as Grafana asks it: PromQL by an existing engine, for each tenant its own."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment
from tests.support.history_tenants import ROUNDS, project_of, tenants_of, write_tenants
from tests.support.lab_process import await_true, children_of
from tests.support.prometheus_build import current_prometheus
from virtflow.schemas.records import VmInventory

START = float(int(time.time()) // 3_600 * 3_600 - 3 * 3_600)
AT = START + (ROUNDS - 2) * 60.0
LAST: dict[str, Any] = {"time": str(AT)}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[VmInventory], set[str]]:
    """Where it is, the inventories, and the UUIDs of the VMs that live at ``AT``."""
    path = tmp_path_factory.mktemp("promql") / "history"
    samples, inventories = write_tenants(path, START)
    return path, inventories, {sample.uuid for sample in samples if AT - 60.0 < sample.collected <= AT}


class Served:
    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        """As it was started."""
        self.process = process
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, headers: dict[str, str] | None = None, *, post: bool = False, **asked: Any) -> tuple[int, Any]:  # noqa: ANN401
        """Status and answer."""
        pairs = [
            (key.replace("match", "match[]"), value)
            for key, values in asked.items()
            for value in (values if isinstance(values, list) else [values])
        ]
        query = urllib.parse.urlencode(pairs)
        url, data = (f"{self.url}/{path}", query.encode()) if post else (f"{self.url}/{path}?{query}", None)
        request = urllib.request.Request(url, data, headers or {})  # noqa: S310, our own
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310, our own
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def vms(self, headers: dict[str, str] | None = None) -> set[str]:
        """UUIDs that a query sees."""
        status, answer = self.get("query", headers, query="vm_state", **LAST)
        assert status == 200, answer
        assert not answer.get("warnings"), answer
        return {element["metric"]["uuid"] for element in answer["data"]["result"]}


@contextmanager
def serving(history: Path, folder: Path, *words: str, env: dict[str, str] | None = None) -> Iterator[Served]:
    (port,) = free_ports(1)
    command = [*DIES_WITH_US, str(PROGRAM), "history", "serve", "--history", str(history), "--listen", f"127.0.0.1:{port}", *words]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(env), stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                    break
            except OSError:
                assert time.monotonic() < deadline, (folder / "serve.log").read_text()
                time.sleep(0.05)
        yield Served(port, process)
    finally:
        if process.poll() is None:
            process.terminate()
            assert process.wait(20) == 0


@pytest.fixture(scope="module", params=["debian", "current"])
def served(
    request: pytest.FixtureRequest, history: tuple[Path, list[VmInventory], set[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    program = "prometheus" if request.param == "debian" else str(current_prometheus())
    with serving(history[0], tmp_path_factory.mktemp("served"), "--prometheus", program) as running:
        yield running


def test_queries_and_ranges_are_evaluated(served: Served) -> None:
    assert len(served.vms()) > 4
    status, answer = served.get("query", query="count(vm_state)", post=True, **LAST)
    assert (status, float(answer["data"]["result"][0]["value"][1])) == (200, len(served.vms()))
    asked: dict[str, Any] = {"query": "rate(vm_cpu_seconds_total[10m])", "start": START + 1_200, "end": AT, "step": 60}
    for post in (False, True):
        status, answer = served.get("query_range", post=post, **asked)
        assert status == 200
        assert len(answer["data"]["result"]) >= len(served.vms())
    status, answer = served.get("query", query="rate(", **LAST)
    assert (status, answer["errorType"]) == (400, "bad_data")


def test_series_labels_and_values(served: Served) -> None:
    around: dict[str, Any] = {"start": START, "end": AT}
    _, series = served.get("series", match="vm_state", **around)
    uuids = {labels["uuid"] for labels in series["data"]}
    assert uuids >= served.vms()
    assert set(served.get("label/uuid/values", match="vm_state", **around)[1]["data"]) == uuids
    assert "vda" in served.get("label/device/values", **around)[1]["data"]
    assert "vda" in served.get("label/device/values", match="vm_block_read_bytes_total", **around)[1]["data"]
    assert "vm_cpu_seconds_total" in served.get("label/__name__/values")[1]["data"]
    assert {"uuid", "name", "device", "__name__"} <= set(served.get("labels")[1]["data"])
    assert set(served.get("labels", match="vm_state", post=True, **around)[1]["data"]) == {"__name__", "name", "uuid"}
    assert served.get("label/nosuch/values")[1]["data"] == []


@pytest.mark.parametrize("post", [False, True])
def test_without_a_start_series_are_those_of_the_last_day(served: Served, *, post: bool) -> None:
    """As labels are; the engine would look at all times there can be, which is refused."""
    status, answer = served.get("series", match="vm_state", end=AT, post=post)
    assert (status, answer.get("warnings")) == (200, None)
    assert {labels["uuid"] for labels in answer["data"]} >= served.vms()
    assert served.get("labels", match="vm_state", end=AT, post=post)[1]["data"] == ["__name__", "name", "uuid"]
    assert served.get("label/uuid/values", match="vm_state")[1]["data"]
    assert served.get("series", match="vm_state", end="soon", post=post)[0] == 400


def test_metadata_is_the_catalogues(served: Served) -> None:
    _, answer = served.get("metadata")
    assert answer["data"]["vm_cpu_seconds_total"][0]["type"] == "counter"
    assert list(served.get("metadata", metric="vm_state")[1]["data"]) == ["vm_state"]
    assert "goVersion" in served.get("status/buildinfo")[1]["data"]


def test_without_an_engine_it_says_what_to_do(history: tuple[Path, list[VmInventory], set[str]], tmp_path: Path) -> None:
    with serving(history[0], tmp_path, "--prometheus", "/nosuch/prometheus") as running:
        status, answer = running.get("query", query="up")
        assert status == 503
        assert "history.serve_prometheus" in answer["error"]
        assert running.get("label/__name__/values")[0] == 200
        with urllib.request.urlopen(running.url.replace("/api/v1", "/metrics"), timeout=10) as reply:  # noqa: S310, our own
            assert 'virtflow_history_serve_queries_total{outcome="failed"} 1.0' in reply.read().decode().splitlines()


def test_a_tenant_sees_its_vms_and_nobody_elses(history: tuple[Path, list[VmInventory], set[str]], tmp_path: Path) -> None:
    path, inventories, alive = history
    tokens = tmp_path / "tokens"
    first, second = tenants_of(inventories)[:2]
    tokens.write_text(f"# who may see what\nsecret-1 {first}\n")
    now = {i.uuid: project_of(i) for i in sorted(inventories, key=lambda i: i.collected)}
    env = {"VIRTFLOW_HISTORY_TENANT_TOKENS_FILE": str(tokens)}
    with serving(path, tmp_path, "--tenant-header", "X-Project", env=env) as running:
        for tenant in (first, second):
            headers = {"X-Project": tenant}
            assert running.vms(headers) == {uuid for uuid, owner in now.items() if owner == tenant and uuid in alive}
            seen = running.get("label/uuid/values", headers)[1]["data"]
            assert set(seen) == {i.uuid for i in inventories if project_of(i) == tenant}
        assert running.vms({"Authorization": "Bearer secret-1"}) == running.vms({"X-Project": first})
        for headers in (
            {},
            {"Authorization": "Bearer nosuch"},
            {"X-Project": ""},
            {"Authorization": f"Virtflow {'0' * 64}.cHJvamVjdA=="},
            {"Authorization": "Virtflow "},
            {"Authorization": "Virtflow .cHJvamVjdA=="},
            {"X-Project": second, "Authorization": "Bearer secret-1"},
        ):
            for route in ("query", "query_range", "series", "labels", "label/uuid/values", "metadata", "status/buildinfo"):
                assert running.get(route, headers, query="vm_state", match="vm_state")[0] == 401, (route, headers)
        request = urllib.request.Request(f"{running.url}/read", b"", method="POST")  # noqa: S310, our own
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)  # noqa: S310, our own
        with refused.value:
            assert refused.value.code == 401
        shown = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert not [line for line in shown.splitlines() if "route-prefix" in line and "virtflow-promql" in line]


def test_the_engine_ends_with_a_server_that_is_killed(history: tuple[Path, list[VmInventory], set[str]], tmp_path: Path) -> None:
    with serving(history[0], tmp_path, "--prometheus", "prometheus") as running:
        assert running.vms()
        engines = [pid for pid in children_of(running.process.pid) if any("virtflow-promql" in word for word in words_of(pid))]
        assert len(engines) == 1
        running.process.kill()
        running.process.wait(20)
        await_true(lambda: not words_of(engines[0]), 20.0, "the engine has ended")


def words_of(pid: int) -> list[str]:
    """A process' command line; empty once it has ended."""
    try:
        return [word for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0") if word]
    except (FileNotFoundError, ProcessLookupError):
        return []
