"""Settings of the processors."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from virtflow.runtime.sections.rows import Seconds, address, row


class Processors(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stream processing."""

    group: Annotated[str, Meta(description="Consumer group of the processors.", min_length=1)] = "virtflow-processors"
    instance: Annotated[
        str,
        row("Name of this process in its group, unique and kept over restarts: rebalances then take seconds. The host name when empty."),
    ] = ""
    listen: Annotated[str, address("Where the processors serve their own /metrics, /healthz and /readyz.")] = "127.0.0.1:9178"
    in_flight: Annotated[int, row("Snapshots that may wait for the broker's acknowledgement at once.", ge=1, le=10000)] = 64
    migration_silence_seconds: Annotated[
        Seconds, row("How long a running migration may go unheard of before it is given up with result unknown.", ge=1, le=604800)
    ] = 60.0
    dead_letter_window: Annotated[int, row("Messages over which the share of undecodable ones is watched.", ge=10, le=1000000)] = 1000
    dead_letter_node_window: Annotated[
        int, row("Messages of one node over which the share of undecodable ones is watched.", ge=1, le=10000)
    ] = 20
    dead_letter_share: Annotated[
        float,
        row(
            "Share of undecodable messages in a node's window at which the node counts as failing; processing stops when the messages "
            "of all reach that share in their window and more than that share of the nodes, two at least, is failing.",
            gt=0,
            le=1,
        ),
    ] = 0.5
