"""``virtflow history``: years of metrics in tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from virtflow.cli.click_parts import CommandGroup, Word
from virtflow.cli.history_ask import over_time, query, report, where
from virtflow.cli.output.progress import Progress
from virtflow.cli.output.say import say, say_json, say_text
from virtflow.cli.parts import part
from virtflow.cli.services import serve
from virtflow.cli.switches import KAFKA, LOG, WEB, json_switch, settings_switches
from virtflow.cli.top.vm_names import VmName
from virtflow.runtime import log
from virtflow.runtime.settings import Settings
from virtflow.schemas.text import safe_line


@click.group(cls=CommandGroup)
def history() -> None:
    """Years of metrics in tables: write, keep, ask."""


@history.command("write")
@settings_switches("history.path", *KAFKA, "topics.prefix", "history.listen", *WEB, *LOG)
def write(settings: Settings) -> None:
    """Store metrics, events, migrations and inventory from Kafka, exactly once. Several share the partitions.

    \b
    Examples:
      virtflow history write --history /srv/virtflow/history --bootstrap-servers kafka1:9092
      virtflow history write --config ./history.toml
    """  # noqa: D301, click's own mark for lines that are kept
    serve("virtflow.history.service", "history", settings)


@history.command("compact")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_switch
@settings_switches("history.path", *LOG)
def compact(settings: Settings, *, dry_run: bool, as_json: bool) -> None:
    """Roll up, compact, expire and vacuum the tables: all that the writer does on its own schedule.

    Every step can be cut off anywhere and repeated.

    \b
    Examples:
      virtflow history compact --dry-run
      virtflow history compact --history s3://metrics/virtflow
    """  # noqa: D301, click's own mark for lines that are kept
    log.setup(settings.log.level, settings.log.format)
    with Progress() as progress:
        said = part("virtflow.history.maintenance.run", "history").maintain(settings.history, progress, dry_run=dry_run)
    if as_json:
        say_json(said)
    else:
        say(*(said or ["nothing to do"]))


@history.command("serve")
@settings_switches("history.path", "history.serve_listen", "history.serve_prometheus", "history.tenant_header", *WEB, *LOG)
def serve_remote_read(settings: Settings) -> None:
    """Answer a Prometheus' remote_read, and PromQL as Grafana asks it, from the tables: years back. Loopback by default.

    \b
    Examples:
      virtflow history serve --history /srv/virtflow/history
      virtflow history serve --tenant-header X-Project
      virtflow history serve --listen 0.0.0.0:9180 --web-config /etc/virtflow/web.yml
    """  # noqa: D301, click's own mark for lines that are kept
    serve("virtflow.history.remote_read.server", "history", settings)


@history.command("verify")
@json_switch
@settings_switches("history.path", *LOG)
def verify(settings: Settings, *, as_json: bool) -> int:
    """Read everything there is, and name what is damaged; exit code 1 then. Nothing is changed.

    \b
    Examples:
      virtflow history verify
      virtflow history verify --json
    """  # noqa: D301, click's own mark for lines that are kept
    log.setup(settings.log.level, settings.log.format)
    store = part("virtflow.history.storage.delta", "history").Store(settings.history)
    with Progress() as progress:
        damage = part("virtflow.history.maintenance.verify", "history").verify(store, progress)
    if as_json:
        say_json([asdict(each) for each in damage])
    else:
        say(*([f"{each.table}/{each.file}: {each.why}; {each.fix}" for each in damage] or ["everything can be read"]))
    return int(bool(damage))


@history.command("forget")
@click.option("--vm", "vms", multiple=True, type=VmName(), metavar="NAME|UUID", help="The VM, by name or UUID.")
@click.option("--project", type=Word(), default="", metavar="ID", help="A project, by its id (its name where the platform has none).")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_switch
@settings_switches("history.path", *LOG)
def forget(settings: Settings, *, as_json: bool, dry_run: bool, yes: bool, **given: Any) -> None:  # noqa: ANN401, click's values
    """Take VMs or a project out of every table for good, delete the files that held them, and search all that are left.

    Readers that began before lose their files. Records that are still in Kafka come again where a writer reads them again. A name that
    several VMs had is refused: name them by UUID.

    \b
    Examples:
      virtflow history forget --vm web-1 --dry-run
      virtflow history forget --project 5f2d1c0e8a644e8f9a550d6f6f0a1b2c --yes
    """  # noqa: D301, click's own mark for lines that are kept
    if bool(given["vms"]) == bool(given["project"]):
        raise click.UsageError("name VMs with --vm, or a project with --project")
    log.setup(settings.log.level, settings.log.format)
    module = part("virtflow.history.maintenance.forgetting.forget", "history")
    store = part("virtflow.history.storage.delta", "history").Store(settings.history)
    named = part("virtflow.history.maintenance.forgetting.subjects", "history")
    subjects = named.vms(store, given["vms"]) if given["vms"] else [named.project(store, given["project"])]
    found = {subject.name: module.counted(store, subject) for subject in subjects}
    if not dry_run:
        if not yes:
            click.confirm(f"{_counted(found)}\nforget them for good?", abort=True, err=True)
        with Progress() as progress:
            found = {subject.name: module.forget(store, settings.history, subject, progress) for subject in subjects}
    if as_json:
        say_json(found)
    else:
        say_text(_counted(found))


def _counted(found: dict[str, dict[str, int]]) -> str:
    rows = {name: ", ".join(f"{table} {count}" for table, count in tables.items()) for name, tables in found.items()}
    return "\n".join(safe_line(f"{name}: {text or 'nothing'}") for name, text in rows.items())


for command in (query, over_time, report, where):
    history.add_command(command)
