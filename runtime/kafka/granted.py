"""Which rights this user has on the broker, as the broker itself tells when it describes a topic or a group."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from virtflow.runtime.kafka.acls import Acl, Operation, Resource


def client_operation(operation: Operation) -> Any:  # noqa: ANN401, the client's AclOperation
    """The client's name of an operation."""
    return AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation.value).upper()]


def lacking(client: Any, acls: Collection[Acl], seconds: float) -> list[Acl]:  # noqa: ANN401, the client's AdminClient
    """Those of the rights that this user does not have; of a topic or group that the broker can't describe nothing is known.

    A broker without an authorizer lets everyone do everything. Raises ``KafkaException`` where the broker does not answer.
    """
    topics = sorted({acl.name for acl in acls if acl.resource is Resource.TOPIC})
    groups = sorted({acl.name for acl in acls if acl.resource is Resource.GROUP})
    asked = {"include_authorized_operations": True, "request_timeout": seconds}
    found: dict[tuple[Resource, str], Any] = {}
    if topics:
        found |= {(Resource.TOPIC, name): future for name, future in client.describe_topics(TopicCollection(topics), **asked).items()}
    if groups:
        found |= {(Resource.GROUP, name): future for name, future in client.describe_consumer_groups(groups, **asked).items()}
    granted = {place: _operations(future) for place, future in found.items()}
    return [acl for acl in acls if (had := granted[acl.resource, acl.name]) is not None and client_operation(acl.operation) not in had]


def _operations(future: Any) -> frozenset[Any] | None:  # noqa: ANN401, the client's future
    """The operations that are allowed; None where that can't be told."""
    try:
        told = future.result().authorized_operations
    except KafkaException as error:
        code = error.args[0].code()
        if code in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}:
            return frozenset()
        if code in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND}:
            return None
        raise
    return None if told is None else frozenset(told)
