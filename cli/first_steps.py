"""What to try next on this machine, for somebody who has only typed ``virtflow``: by what is here, without connecting to anything."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SETTINGS: Final = "etc/virtflow/virtflow.toml"
"""Where the deployment pages put the settings."""
SOCKETS: Final = ("run/libvirt/libvirt-sock", "run/libvirt/virtqemud-sock")
"""libvirt's, of the one daemon and of the modular one (source: libvirt's daemons page)."""


def first_steps(root: Path = Path("/")) -> list[str]:
    """A few lines of advice; ``root`` is the machine's root folder."""
    if any((root / socket).exists() for socket in SOCKETS):
        look = "Its VMs: `virtflow snapshot`, or `virtflow top --libvirt` to watch them"
        steps = [f"libvirt is on this machine. {look}; their metrics and a page, without Kafka: `virtflow node`."]
    else:
        steps = ["libvirt is not on this machine. A fleet by its exporter: `virtflow top --url http://EXPORTER:9177`."]
    if (root / SETTINGS).exists():
        steps.append(f"There are settings. What is missing before a service can run: `virtflow check --config /{SETTINGS}`.")
    else:
        steps.append("Settings begin with `virtflow config sample`; `virtflow check` says what is missing before a service can run.")
    return steps
