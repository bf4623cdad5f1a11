"""Whether a user may have an answer: the cluster's own rules, asked by a SubjectAccessReview and remembered for a moment."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from virtflow.adapter.kubernetes.client import KubernetesClient, KubernetesError
from virtflow.adapter.kubernetes.front_proxy import User
from virtflow.adapter.requests import Attributes

PATH: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
REMEMBER_SECONDS: Final = 10.0
"""How long an answer of the cluster holds; a right that was taken away is gone then."""
REMEMBERED: Final = 10_000
"""Answers that are remembered at most."""

Question = tuple[User, Attributes]


class _Status(Struct, frozen=True):
    allowed: bool = False


class _Review(Struct, frozen=True):
    status: _Status = field(default_factory=_Status)


def review(user: User, wanted: Attributes) -> dict[str, Any]:
    """The SubjectAccessReview for a request."""
    attributes = {name: value for name in wanted.__struct_fields__ if (value := getattr(wanted, name))}
    spec: dict[str, Any] = {"user": user.name, "groups": list(user.groups), "resourceAttributes": attributes}
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


class Access:
    """Asks the cluster, once for requests that ask the same at a time. Belongs to the event loop."""

    def __init__(self, client: KubernetesClient, clock: Callable[[], float]) -> None:
        """``clock`` returns monotonic seconds."""
        self._client = client
        self._clock = clock
        self._known: OrderedDict[Question, tuple[float, bool]] = OrderedDict()
        self._asked: dict[Question, asyncio.Task[bool]] = {}

    async def allowed(self, user: User, wanted: Attributes) -> bool:
        """Whether the user may; raises ``KubernetesError`` where the cluster does not answer and has not lately."""
        question = user, wanted
        until, answer = self._known.get(question, (float("-inf"), False))
        if self._clock() < until:
            return answer
        if question not in self._asked:
            self._asked[question] = asyncio.create_task(self._ask(question))
        return await asyncio.shield(self._asked[question])

    async def _ask(self, question: Question) -> bool:
        try:
            answer = _allowed(await self._client.create(PATH, review(*question)))
        finally:
            del self._asked[question]
        self._known[question] = self._clock() + REMEMBER_SECONDS, answer
        self._known.move_to_end(question)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return answer


def _allowed(body: bytes) -> bool:
    """The answer to a review; raises ``KubernetesError`` where it is none."""
    try:
        return msgspec.json.decode(body, type=_Review).status.allowed
    except (msgspec.DecodeError, RecursionError) as error:
        raise KubernetesError(0, f"POST {PATH}: an answer that can't be read: {error}") from error
