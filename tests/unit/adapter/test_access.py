"""Access is the cluster's decision, remembered for a moment."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.kubernetes.double import Double, served
from virtflow.adapter.kubernetes.access import REMEMBER_SECONDS, Access, review
from virtflow.adapter.kubernetes.client import KubernetesError
from virtflow.adapter.kubernetes.front_proxy import User
from virtflow.adapter.requests import Attributes

JANE = User("jane", ("devs",), (("project", ("shop",)),))
WANTED = Attributes("custom.metrics.k8s.io", "v1beta2", "get", "shop", "pods", "vm_cpu_cores", "*")


def test_the_review_says_who_wants_what() -> None:
    assert review(JANE, WANTED) == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "jane",
            "groups": ["devs"],
            "extra": {"project": ["shop"]},
            "resourceAttributes": {
                "group": "custom.metrics.k8s.io",
                "version": "v1beta2",
                "verb": "get",
                "namespace": "shop",
                "resource": "pods",
                "subresource": "vm_cpu_cores",
                "name": "*",
            },
        },
    }


def test_an_answer_holds_for_a_while() -> None:
    """For this user and this question alone; a right that was taken away is gone then."""

    async def body() -> None:
        double, now = Double(), [0.0]
        async with served(double) as client:
            access = Access(client, lambda: now[0])
            assert await access.allowed(JANE, WANTED)
            double.allowed = False
            assert await access.allowed(JANE, WANTED)
            assert not await access.allowed(User("john"), WANTED)
            now[0] = REMEMBER_SECONDS
            assert not await access.allowed(JANE, WANTED)
            double.allowed = True
            assert not await access.allowed(JANE, WANTED)
            assert len(double.reviews) == 3

    asyncio.run(body())


def test_requests_at_a_time_share_one_review() -> None:
    async def body() -> None:
        double = Double()
        async with served(double) as client:
            access = Access(client, lambda: 0.0)
            assert await asyncio.gather(*(access.allowed(JANE, WANTED) for _ in range(20))) == [True] * 20
            assert len(double.reviews) == 1

    asyncio.run(body())


def test_without_an_answer_there_is_none() -> None:
    """Not a yes, and not a no that is remembered."""

    async def body() -> None:
        double = Double()
        async with served(double) as client:
            access = Access(client, lambda: 0.0)
            client._url = "http://127.0.0.1:1"
            with pytest.raises(KubernetesError):
                await access.allowed(JANE, WANTED)
        async with served(double) as client:
            access._client = client
            assert await access.allowed(JANE, WANTED)

    asyncio.run(body())


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtflow.adapter.kubernetes.access.REMEMBERED", 3)

    async def body() -> None:
        async with served(Double()) as client:
            access = Access(client, lambda: 0.0)
            for number in range(10):
                await access.allowed(User(f"user-{number}"), WANTED)
            assert len(access._known) == 3

    asyncio.run(body())
