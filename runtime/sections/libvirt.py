"""Settings of the connection to libvirt."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct, field

from virtflow.runtime.sections.rows import Seconds, row


class Libvirt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The connection to libvirt on a hypervisor."""

    uri: Annotated[str, row("libvirt connection URI.", "--connect")] = "qemu:///system"
    discover: Annotated[
        list[str],
        row(
            "Ask every libvirt daemon whose socket has a path like one of these patterns, instead of the one of libvirt.uri: KubeVirt has a "
            "daemon for each VM (docs/kubernetes.md). Absolute paths with *, ? and [] in any part, separated by commas; looked for in each round.",
            "--discover",
        ),
    ] = field(default_factory=list)
    connect_timeout_seconds: Annotated[Seconds, row("How long connecting may take before it is given up.", ge=0.1, le=600)] = 10.0
    keepalive_seconds: Annotated[int, row("Interval of keepalive messages to libvirt.", ge=1, le=60)] = 2
    keepalive_count: Annotated[int, row("Keepalive messages without an answer after which the connection is lost.", ge=1, le=20)] = 2
    reconnect_maximum_seconds: Annotated[Seconds, row("Longest pause between attempts to reconnect.", ge=0.1, le=3600)] = 10.0
    migration_status: Annotated[
        bool,
        row(
            "Also listen, on a second connection that may write, to QEMU's own status of its migrations: libvirt tells a read-only client "
            "that a migration did not complete, but not whether it was cancelled or failed. Nothing is ever written."
        ),
    ] = False
