"""``virtflow history``: years of metrics in tables."""

from __future__ import annotations

import click

from virtflow.cli.services import serve
from virtflow.cli.switches import KAFKA, LOG, settings_switches
from virtflow.runtime.settings import Settings


@click.group()
def history() -> None:
    """Years of metrics in tables: write, keep, ask."""


@history.command("write")
@settings_switches("history.path", *KAFKA, "topics.prefix", "history.listen", *LOG)
def write(settings: Settings) -> None:
    """Store metrics, events, migrations and inventory from Kafka, exactly once. Several share the partitions.

    \b
    Examples:
      virtflow history write --history /srv/virtflow/history --bootstrap-servers kafka1:9092
      virtflow history write --config /etc/virtflow/virtflow.toml
    """  # noqa: D301, click's own mark for lines that are kept
    serve("virtflow.history.service", "history", settings)
