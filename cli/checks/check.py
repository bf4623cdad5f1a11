"""``virtflow check``: everything a service will need, looked at before it runs, one line each with the fix."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from virtflow.cli.checks import probes, settings_check, web_check
from virtflow.cli.checks.findings import Finding, good, of_setting
from virtflow.cli.output.say import say, say_json
from virtflow.cli.output.table import printable
from virtflow.cli.switches import KAFKA, WEB, config_switch, given_switches, json_switch, setting_options
from virtflow.runtime.config_files import config_folder, unread_files
from virtflow.runtime.configuration import Survey, survey
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import SettingError

ALL = ("producer", "processors", "exporter", "node")
"""Services that are looked at where they are installed."""
BY_CHOICE = ("adapter", "history")
"""Services that are looked at when they are named, or when their settings are."""
SWITCHES = ("libvirt.uri", "libvirt.discover", *KAFKA, "topics.prefix", *WEB)
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
    Without --for the services are looked at whose packages are installed here.

    \b
    Examples:
      virtflow check
      virtflow check --for producer
      virtflow check --for node --connect qemu:///system
      virtflow check --json | jq '.findings[] | select(.ok | not)'
    """  # noqa: D301, click's own mark for lines that are kept
    found: list[Finding] = []
    for finding in findings(services, config_file, given_switches(given, SWITCHES)):
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


def findings(services: Sequence[str], config_file: Path | None, switches: dict[str, object]) -> Iterator[Finding]:
    """Looks at everything that ``services`` need, the quick things first; at those that are installed here where none is named.

    Parts with the same settings are looked at together; what several of them need is reported once.
    """
    chosen = list(services)
    if not services:
        chosen = [*_installed(), *(part for part in BY_CHOICE if _is_meant(part, config_file))]
        yield from (_left_out(part) for part in ALL if part not in chosen)
    if folder := config_folder(config_file, os.environ):
        yield from map(settings_check.unread, unread_files(folder))
    seen: set[Finding] = set()
    for parts, surveyed in _by_settings(chosen, config_file, switches):
        for finding in _of_settings(parts, surveyed):
            if finding not in seen:
                seen.add(finding)
                yield finding


def _installed() -> list[str]:
    """The parts whose packages are here; all where none is complete, so that what is missing is seen."""
    return [part for part in ALL if not any(map(probes.missing_packages, _extras(part)))] or list(ALL)


def _extras(part: str) -> tuple[str, ...]:
    return NODE_EXTRAS if part == "node" else (part,)


def _is_meant(part: str, config_file: Path | None) -> bool:
    return any(setting.startswith(f"{part}.") for setting in survey(config_file, os.environ, part=part).origins)


def _left_out(part: str) -> Finding:
    missing = sorted({name for extra in _extras(part) for name in probes.missing_packages(extra)})
    return good("part", part, f"not looked at: not installed here ({', '.join(missing)}); --for {part} looks at it")


def _by_settings(services: Sequence[str], config_file: Path | None, switches: dict[str, object]) -> list[tuple[list[str], Survey]]:
    """Parts that have equal settings, each with what was read for the first of them."""
    groups: list[tuple[list[str], Survey]] = []
    for part in services:
        surveyed = survey(config_file, os.environ, switches, part)
        same = next((parts for parts, other in groups if (other.settings, other.errors, other.files) == _content(surveyed)), None)
        if same is None:
            groups.append(([part], surveyed))
        else:
            same.append(part)
    return groups


def _content(surveyed: Survey) -> tuple[Settings, tuple[SettingError, ...], tuple[Path, ...]]:
    return surveyed.settings, surveyed.errors, surveyed.files


def _of_settings(parts: Sequence[str], surveyed: Survey) -> Iterator[Finding]:
    """Everything that parts with the same settings need."""
    settings, services = surveyed.settings, frozenset(parts)
    if surveyed.errors:
        # What lies outside is looked at with good settings only: with a default in a bad one's place the answer would mislead.
        yield from map(of_setting, surveyed.errors)
        return
    wrong = list(settings_check.contradictions(settings))
    yield from wrong
    if not wrong:
        read = ", ".join(map(str, surveyed.files)) or "no file"
        yield good("settings", read, f"good; {len(surveyed.origins)} set, the rest defaults")
    files = list(settings_check.files(settings, surveyed.files, services))
    yield from files
    yield from web_check.findings(settings, services)
    files_good = all(finding.ok for finding in files)
    yield from _here(services, settings, files_good=files_good)
    yield from _outside(services, settings, files_good=files_good)


def _here(services: frozenset[str], settings: Settings, *, files_good: bool) -> Iterator[Finding]:
    """What a service needs of this machine."""
    for extra in ("producer", "processors", "exporter", "adapter", "history"):
        if any(extra in _extras(service) for service in services):
            yield from probes.packages(extra)
    if files_good:
        yield from probes.starts(settings, services)
    if "producer" in services:
        yield settings_check.folder(Path(settings.producer.journal_folder).absolute(), "producer.journal_folder")
    for listen, key in web_check.listening(settings, services):
        if key != "history.serve_listen":  # a command of its own, which need not run here
            yield from probes.port(listen, key)


def _outside(services: frozenset[str], settings: Settings, *, files_good: bool) -> Iterator[Finding]:
    """What answers a service, or does not."""
    alone = services == {"node"}
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
