"""``virtflow check``: everything a service will need, looked at before it runs, one line each with the fix."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from virtflow.cli.checks import probes, settings_check, web_check
from virtflow.cli.checks.findings import Finding, of_setting
from virtflow.cli.output.say import say, say_json
from virtflow.cli.output.table import printable
from virtflow.cli.switches import KAFKA, WEB, config_switch, given_switches, json_switch, setting_options
from virtflow.runtime.configuration import chosen_file, survey
from virtflow.runtime.settings import Settings

ALL = ("producer", "processors", "exporter", "node")
BY_CHOICE = ("adapter", "history")
"""Services that are looked at when they are named, or when their settings are."""
SWITCHES = ("libvirt.uri", *KAFKA, "topics.prefix", *WEB)
NODE_EXTRAS = ("producer", "exporter")
"""What `virtflow node` is installed with."""
LONGEST = 400


@click.command()
@click.option(
    "--for", "services", multiple=True, type=click.Choice((*ALL, *BY_CHOICE)), help="Only what this service needs; may be repeated."
)
@config_switch
@setting_options(*SWITCHES)
@json_switch
def check(*, services: tuple[str, ...], config_file: Path | None, as_json: bool, **given: str | None) -> int:
    """Test everything a service will need: settings, files, packages, libvirt, broker, topics, registry and ports.

    One line each, with the fix where something is wrong; exit code 1 then. Nothing is changed, and nothing waits indefinitely.

    \b
    Examples:
      virtflow check
      virtflow check --for producer --config /etc/virtflow/virtflow.toml
      virtflow check --for node --connect qemu:///system
      virtflow check --json | jq '.findings[] | select(.ok | not)'
    """  # noqa: D301, click's own mark for lines that are kept
    found: list[Finding] = []
    for finding in findings(services or ALL, config_file, given_switches(given, SWITCHES)):
        found.append(finding)
        if not as_json:
            say(line(finding), mark=mark(finding))
    wrong = sum(not finding.ok for finding in found)
    if as_json:
        say_json({"ok": not wrong, "findings": [asdict(finding) for finding in found]})
    else:
        warnings = sum(finding.warning for finding in found)
        summary = f"{wrong} of {len(found)} wrong" if wrong else f"all {len(found)} fine"
        say("", summary + (f", {warnings} with a warning" if warnings else ""))
    return int(wrong > 0)


def findings(services: tuple[str, ...], config_file: Path | None, switches: dict[str, object]) -> Iterator[Finding]:
    """Looks at everything that ``services`` need, the quick things first."""
    surveyed = survey(config_file, os.environ, switches)
    settings = surveyed.settings
    if surveyed.errors:
        # What lies outside is looked at with good settings only: with a default in a bad one's place the answer would mislead.
        yield from map(of_setting, surveyed.errors)
        return
    wrong = list(settings_check.contradictions(settings))
    yield from wrong
    config = chosen_file(config_file, os.environ)
    if not wrong:
        yield Finding(
            ok=True, thing="settings", value=str(config or "no file"), detail=f"good; {len(surveyed.origins)} set, the rest defaults"
        )
    if services == ALL:
        services = (*ALL, *(name for name in BY_CHOICE if any(origin.startswith(f"{name}.") for origin in surveyed.origins)))
    files = list(settings_check.files(settings, config if config and config.is_file() else None, frozenset(services)))
    yield from files
    yield from web_check.findings(settings, frozenset(services))
    yield from _outside(set(services), settings, files_good=all(finding.ok for finding in files))


def _outside(services: set[str], settings: Settings, *, files_good: bool) -> Iterator[Finding]:
    alone = services == {"node"}
    for extra in ("producer", "processors", "exporter", "adapter", "history"):
        if extra in services or ("node" in services and extra in NODE_EXTRAS):
            yield from probes.packages(extra)
    if "producer" in services:
        yield settings_check.folder(Path(settings.producer.journal_folder).absolute(), "producer.journal_folder")
    for listen, key in web_check.listening(settings, frozenset(services)):
        if key != "history.serve_listen":  # a command of its own, which need not run here
            yield from probes.port(listen, key)
    if services & {"producer", "node"}:
        yield from probes.libvirt(settings)
    if "history" in services and files_good:
        yield from probes.storage(settings)
    if not alone:
        yield from probes.registry(settings)
        if files_good:
            yield from probes.broker_and_topics(settings, services)


def mark(finding: Finding) -> str:
    """The sign before a finding's line."""
    sign, colour = ("✗", "red") if not finding.ok else ("!", "yellow") if finding.warning else ("✓", "green")
    return click.style(sign, fg=colour) + " "


def line(finding: Finding) -> str:
    """One line for people."""
    told = printable(f"{finding.thing} {finding.value}: {finding.detail}", LONGEST)
    return told + (f"; fix: {printable(finding.fix, LONGEST)}" if finding.fix else "")
