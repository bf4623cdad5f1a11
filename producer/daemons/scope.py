"""What is not done where several daemons are asked, and why: settings that contradict `libvirt.discover`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from virtflow.producer.agent.selection import wanted
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A setting that has no effect beside ``libvirt.discover``: its key, why, and the fix."""

    key: str
    why: str
    fix: str


def contradictions(settings: Settings) -> Iterator[Contradiction]:
    """The settings that contradict one another; none where ``libvirt.discover`` is empty."""
    if not settings.libvirt.discover:
        return
    if wanted(settings.guest):
        why = "the helper process that asks guests' agents connects to one daemon only"
        yield Contradiction("guest", why, "leave out the settings of [guest], or libvirt.discover")
    if settings.libvirt.migration_status:
        why = "QEMU's own status is listened to at one daemon only"
        yield Contradiction("libvirt.migration_status", why, "set it to false, or leave out libvirt.discover")
    for pattern in settings.libvirt.discover:
        if not pattern.startswith("/"):
            yield Contradiction("libvirt.discover", f"{pattern!r} is no absolute path", "begin it with /")


def refuse_contradictions(settings: Settings) -> None:
    """Raise ``EnvironmentProblemError`` for the first contradiction."""
    for one in contradictions(settings):
        raise EnvironmentProblemError(thing="setting", value=one.key, why=f"{one.why}, and libvirt.discover is set", fix=one.fix)
