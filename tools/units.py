"""The systemd units, one row each: what they share (users, secrets, hardening, restarts) is written once and is the same in all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from virtflow.runtime.config_files import INSTANCE_VARIABLE, SECTIONS, credential_name
from virtflow.runtime.secrets import CREDENTIALS

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "deploy" / "systemd"
PROGRAM: Final = "/opt/virtflow/bin/virtflow"
"""Where an administrator's own environment has the program; packages write their own place here."""

HARDENING: Final = """# Nothing of the machine but what the service reads, and no way to more.
NoNewPrivileges=true
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=true
PrivateTmp=true
PrivateDevices=true
{processes}
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectKernelLogs=true
ProtectControlGroups=true
ProtectClock=true
ProtectHostname=true
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
LockPersonality=true
MemoryDenyWriteExecute=true
RemoveIPC=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0077
# A core would hold the passwords.
LimitCORE=0"""
NO_PROCESSES: Final = "ProtectProc=invisible\nProcSubset=pid"
ALL_PROCESSES: Final = "# Whether a QEMU hangs shows in its process's state.\nProtectProc=default\nProcSubset=all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit: the part whose settings it reads, its command, and its limits."""

    name: str
    part: str
    command: str
    about: str
    memory: str
    tasks: int
    files: int = 4096
    hypervisor: bool = False
    """It asks libvirt."""
    state: str
    """What it keeps on the disk."""
    for_good: bool = False
    """It can end with exit code 3."""
    wait: str = "Waiting for a broker is no failure, however long it takes."
    environment: tuple[str, ...] = ()

    @property
    def template(self) -> bool:
        """Whether it is started once for each instance."""
        return self.name.endswith("@")

    @property
    def file(self) -> Path:
        """Where it lies in the checkout."""
        return FOLDER / f"{self.name}.service"


_ONE_HEAP: Final = "# One heap for all threads: each more of them would keep what it once had.\nEnvironment=MALLOC_ARENA_MAX=1"
_INSTANCE: Final = f"# Its settings: virtflow.toml, PART.toml, then PART@INSTANCE.toml.\nEnvironment={INSTANCE_VARIABLE}=%i"
_MEMBER: Final = "# Its name in the consumer group, unique and the same after a restart.\nEnvironment=VIRTFLOW_PROCESSORS_INSTANCE=%H-%i"

_PROCESSORS: Final = Unit(
    name="virtflow-processors",
    part="processors",
    command="processors",
    about="snapshots to named metrics",
    memory="1G",
    tasks=128,
    state="What the schema registry answered, for starts without it.",
    for_good=True,
)
_EXPORTER: Final = Unit(
    name="virtflow-exporter",
    part="exporter",
    command="exporter",
    about="the fleet at /metrics",
    memory="2G",
    tasks=64,
    state="What the schema registry answered, for starts without it.",
)

UNITS: Final = (
    Unit(
        name="virtflow-producer",
        part="producer",
        command="producer",
        about="this hypervisor's VMs to Kafka",
        memory="256M",
        tasks=64,
        files=1024,
        hypervisor=True,
        state="Events that the broker does not have yet.",
        wait="Waiting for a broker or for libvirt is no failure, however long it takes.",
        environment=(_ONE_HEAP,),
    ),
    Unit(
        name="virtflow-node",
        part="node",
        command="node",
        about="this hypervisor's VMs at /metrics, without Kafka",
        memory="256M",
        tasks=64,
        files=1024,
        hypervisor=True,
        state="The migrations that --keep-last shows.",
        wait="Waiting for libvirt is no failure, however long it takes.",
        environment=(_ONE_HEAP,),
    ),
    _PROCESSORS,
    replace(_PROCESSORS, name="virtflow-processors@", about="snapshots to named metrics, instance %i", environment=(_INSTANCE, _MEMBER)),
    _EXPORTER,
    replace(_EXPORTER, name="virtflow-exporter@", about="a shard of the fleet at /metrics, instance %i", environment=(_INSTANCE,)),
    Unit(
        name="virtflow-history",
        part="history",
        command="history write",
        about="years of metrics in tables",
        memory="2G",
        tasks=256,
        state="The tables, unless history.path is elsewhere.",
        wait="Waiting for a broker or for the storage is no failure, however long it takes.",
    ),
    Unit(
        name="virtflow-history-serve",
        part="history",
        command="history serve",
        about="the history's answers to Prometheus and Grafana",
        memory="8G",
        tasks=512,
        state="The tables that virtflow-history writes, unless history.path is elsewhere.",
        wait="Waiting for the storage is no failure, however long it takes.",
    ),
)


def unit_text(unit: Unit) -> str:
    """The unit file."""
    return "\n\n".join([_head(unit), _service(unit), "[Install]\nWantedBy=multi-user.target"]) + "\n"


def _head(unit: Unit) -> str:
    after = "network-online.target" + (" libvirtd.service virtqemud.service" if unit.hypervisor else "")
    return f"""# Generated by scripts/generate from tools/units.py: do not edit. `systemctl edit {unit.name}` changes what runs.
[Unit]
Description=virtflow {unit.command}: {unit.about}
Documentation=man:virtflow(1) man:virtflow.toml(5)
Wants=network-online.target
After={after}"""


def _service(unit: Unit) -> str:
    state = f"virtflow/{unit.part}" + ("@%i" if unit.template else "")
    lines = [
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={PROGRAM} {unit.command}",
        f"User=virtflow-{unit.part}",
        f"Group=virtflow-{unit.part}",
        *unit.environment,
        "# Secrets, each where there is one: from /etc/credstore, which root alone can read.",
        *(f"LoadCredential={setting}:{credential_name(unit.part, setting)}" for setting in secrets_of(unit.part)),
        f"# {unit.state}",
        f"StateDirectory={state}",
        "StateDirectoryMode=0700",
        f"# {unit.wait}",
        "TimeoutStartSec=infinity",
        "TimeoutStopSec=15",
        *(["# One sign of life a round: with an interval over 30 s, give it more than two rounds."] if unit.part == "producer" else []),
        "WatchdogSec=60",
        "Restart=always",
        "RestartSec=2",
        *_end_for_good(unit),
        f"MemoryMax={unit.memory}",
        f"TasksMax={unit.tasks}",
        f"LimitNOFILE={unit.files}",
        "OOMPolicy=stop",
        "",
        HARDENING.format(processes=ALL_PROCESSES if unit.hypervisor else NO_PROCESSES),
    ]
    return "\n".join(lines)


def _end_for_good(unit: Unit) -> list[str]:
    if not unit.for_good:
        return []
    why = "# It has ended for good, because a restart would do the same harm again: its last line says what has to be fixed first."
    return [why, "RestartPreventExitStatus=3"]


def secrets_of(part: str) -> list[str]:
    """The settings of a part that name a secret which systemd can give."""
    return sorted(setting for setting in CREDENTIALS if setting.partition(".")[0] in SECTIONS[part])


PACKAGES: Final = {"virtflow-producer": ("producer",), "virtflow-centre": ("processors", "exporter", "history", "node")}
"""The Debian packages and the parts that each starts. ``node`` takes packages of the centre, too."""

_SYSUSERS: Final = """# Generated by scripts/generate from tools/units.py: do not edit. Installed as /usr/lib/sysusers.d/{package}.conf.
# One user for each part. The group virtflow is for files that several of them read, such as a certificate. Reading libvirt needs no group: its
# read-only socket is open to all, while members of the group libvirt are as good as root.
g virtflow -
"""
_TMPFILES: Final = """# Generated by scripts/generate from tools/units.py: do not edit. Installed as /usr/lib/tmpfiles.d/{package}.conf.
# Above the folders of the parts, which systemd makes for the user of each.
d /var/lib/virtflow 0755 root root -
"""


def sysusers_text(package: str) -> str:
    """The users of a package's parts, for systemd-sysusers."""
    users = [line for part in PACKAGES[package] for line in (f'u virtflow-{part} - "virtflow {part}"', f"m virtflow-{part} virtflow")]
    return _SYSUSERS.format(package=package) + "\n".join(users) + "\n"


def files() -> Iterator[tuple[Path, str]]:
    """Every generated file of deploy/systemd with its text."""
    for unit in UNITS:
        yield unit.file, unit_text(unit)
    for package in PACKAGES:
        yield FOLDER / f"{package}.sysusers", sysusers_text(package)
        yield FOLDER / f"{package}.tmpfiles", _TMPFILES.format(package=package)
