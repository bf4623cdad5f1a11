"""What the APIs say they have."""

from __future__ import annotations

import msgspec
import pytest

from virtflow.adapter.discovery import documents, status_of
from virtflow.adapter.requests import CUSTOM, EXTERNAL, KINDS, Reason, RefusedError
from virtflow.schemas.catalogue.scaling import SCALING_METRICS


def test_every_metric_is_listed_for_every_kind_whether_or_not_a_vm_has_it() -> None:
    for version in ("v1beta1", "v1beta2"):
        found = msgspec.json.decode(documents([CUSTOM])[f"/apis/{CUSTOM}/{version}"])
        assert found["groupVersion"] == f"{CUSTOM}/{version}"
        assert {one["name"] for one in found["resources"]} == {f"{kind}/{m.name}" for kind in KINDS for m in SCALING_METRICS}
        assert {one["name"].split("/")[0] for one in found["resources"] if not one["namespaced"]} == {"namespaces"}


def test_external_metrics_are_there_on_request() -> None:
    assert not [path for path in documents([CUSTOM]) if EXTERNAL in path]
    found = msgspec.json.decode(documents([CUSTOM, EXTERNAL])[f"/apis/{EXTERNAL}/v1beta1"])
    assert [one["name"] for one in found["resources"]] == [metric.name for metric in SCALING_METRICS]


def test_the_group_names_its_versions() -> None:
    found = msgspec.json.decode(documents([CUSTOM])[f"/apis/{CUSTOM}"])
    assert [one["version"] for one in found["versions"]] == ["v1beta2", "v1beta1"]
    assert found["preferredVersion"] == found["versions"][0]


@pytest.mark.parametrize("reason", Reason)
def test_refusals_are_statuses(reason: Reason) -> None:
    found = msgspec.json.decode(status_of(RefusedError(reason, "why")))
    assert (found["kind"], found["status"], found["reason"], found["message"]) == ("Status", "Failure", reason.value, "why")
    assert found["code"] == {"BadRequest": 400, "Unauthorized": 401, "Forbidden": 403, "NotFound": 404, "ServiceUnavailable": 503}[reason]
