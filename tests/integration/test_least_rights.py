"""The whole pipeline with exactly the rights that ``virtflow topics acls`` gives, over TLS with passwords."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import virtflow
from tests.support.processors import eventually
from tests.support.secure_broker import SecureBroker
from tests.support.secured_service import COMMANDS, Service, least_rights
from virtflow.runtime.kafka.acls import Acl, Part, acls
from virtflow.runtime.settings import Settings

SECONDS = 120.0


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """A broker with a user for each part, each with exactly the rights that the command gives."""
    with least_rights(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


def test_the_command_shows_what_the_table_says(secured: SecureBroker) -> None:
    """The rights that the broker has are the table's: each user its own, and nobody any other."""
    shown = virtflow("topics", "acls", "--json")
    told = {(one["for"], one["resource"], one["name"], one["operation"]) for one in json.loads(shown.stdout)}
    assert told == {(acl.part, acl.resource, acl.name, acl.operation) for acl in acls(Settings(), *Part)}
    assert secured.rights() == {(f"User:{part}", resource, name, operation) for part, resource, name, operation in told}


def test_the_pipeline_runs_with_them(secured: SecureBroker, tmp_path: Path) -> None:
    """From the producer's first round to rows in the history, and ``check`` finds nothing wrong for any part."""
    with contextlib.ExitStack() as stack:
        running = {part: stack.enter_context(Service(part, secured, tmp_path)) for part in COMMANDS}
        exporter, history = running[Part.EXPORTER], running[Part.HISTORY]
        eventually("VMs at /metrics", lambda: exporter.counted("virtflow_exporter_vms") >= 5, SECONDS)
        eventually("nodes at /metrics", lambda: exporter.counted("virtflow_exporter_nodes") >= 2, SECONDS)
        eventually("rows in the history", lambda: history.counted("virtflow_history_rows_total") >= 5, SECONDS)
        tap = virtflow("tap", "metrics", "--count", "3", "--json", env=secured.as_user("tap", tmp_path))
        assert len(tap.stdout.splitlines()) == 3, tap.stderr
        assert {part: service.complaint for part, service in running.items()} == dict.fromkeys(COMMANDS, "")
        for part in (Part.PRODUCER, Part.PROCESSORS, Part.EXPORTER, Part.HISTORY):
            done = virtflow("check", "--for", part, "--json", env=secured.as_user(part, tmp_path))
            wrong = [one for one in json.loads(done.stdout)["findings"] if not one["ok"] and one["thing"] in {"broker", "topic", "group"}]
            assert wrong == []


@pytest.mark.parametrize("acl", list(acls(Settings(), *COMMANDS)), ids=lambda acl: f"{acl.part}-{acl.operation}-{acl.name}")
def test_check_names_the_right_that_is_missing(secured: SecureBroker, tmp_path: Path, acl: Acl) -> None:
    """Each right of each service is taken away in turn: one finding says which, and how it is given."""
    who = f"User:{acl.part}"
    secured.revoke(who, acl.resource, acl.name, acl.operation)
    try:
        done = virtflow("check", "--for", acl.part, "--json", env=secured.as_user(acl.part, tmp_path))
    finally:
        given = virtflow("topics", "acls", "--for", acl.part, "--principal", who, "--apply", env=secured.as_user("admin", tmp_path))
        assert given.returncode == 0, given.stderr
    (found,) = [one for one in json.loads(done.stdout)["findings"] if not one["ok"] and one["thing"] in {"broker", "topic", "group"}]
    assert found["value"] == acl.name
    assert acl.operation in found["detail"] + found["fix"] or "may not see it" in found["detail"]
    assert "virtflow topics acls" in found["fix"]
