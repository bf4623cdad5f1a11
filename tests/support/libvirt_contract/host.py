"""What the suite needs of a host: a real one of the lab, or the in-memory one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

PROMPT_SECONDS: Final = 5.0
"""Within which an answer has come that waits for nothing, on a busy machine."""
HANGING_SECONDS: Final = 1.5
"""After which a call that has not ended is taken to hang."""


@dataclass(frozen=True, slots=True)
class Known:
    """A VM of the host, as the test knows it."""

    name: str
    uuid: str


class Attempt(Protocol):
    """A call to libvirt in a thread of its own."""

    def ends_within(self, seconds: float) -> bool:
        """Wait so long at most; whether it has ended."""

    @property
    def seconds(self) -> float:
        """How long it took, once it has ended."""

    def result(self) -> Any:  # noqa: ANN401, whatever the call returns
        """What it returned; raises what it raised."""


class Host(Protocol):
    """A host with one libvirtd. Its running VMs have no operating system and are paused, with a disk, a NIC and two vCPUs."""

    libvirt: Any
    """The module."""
    uri: str
    version: tuple[int, int, int]
    vms: tuple[Known, ...]
    """Transient VMs, eight at the least."""
    off: Known
    """A persistent VM that is shut off, without devices."""

    def connect(self, *, writing: bool = False) -> Any:  # noqa: ANN401, the binding has no types
        """A new connection, with an event loop behind it and keepalive of 2 s x 2."""

    def attempt(self, call: Callable[[], Any]) -> Attempt:
        """Begin a call."""

    def thread(self) -> int:
        """What tells the calling thread from others."""

    def let_pass(self, seconds: float) -> None:
        """Let time pass."""

    def freeze(self, *vms: Known) -> None:
        """Stop their QEMUs."""

    def thaw(self, *vms: Known) -> None:
        """Let them go on."""

    def create(self) -> Known:
        """One more paused VM, transient."""

    def destroy(self, vm: Known) -> None:
        """End it."""

    def resume(self, vm: Known) -> None:
        """Let its vCPUs run."""

    def suspend(self, vm: Known) -> None:
        """Pause it."""

    def start(self, vm: Known) -> None:
        """Boot one that is shut off."""

    def pause_daemon(self) -> None:
        """Stop libvirtd (SIGSTOP)."""

    def resume_daemon(self) -> None:
        """Let it go on."""

    def restart_daemon(self) -> None:
        """End it and start it again."""

    def limit_workers(self, workers: int, priority: int) -> None:
        """How many workers of each kind the daemon may have."""

    def hung_calls(self) -> int:
        """How many workers are held."""


def promptly(host: Host, call: Callable[[], Any]) -> Any:  # noqa: ANN401, whatever the call returns
    """What a call returns that waits for nothing."""
    attempt = host.attempt(call)
    assert attempt.ends_within(PROMPT_SECONDS), f"{call} does not answer"
    return attempt.result()


def error_of(host: Host, call: Callable[[], Any]) -> int:
    """The code of the error that a call raises at once; 0: it returns."""
    try:
        promptly(host, call)
    except host.libvirt.libvirtError as error:
        return int(error.get_error_code())
    return 0


def hanging(host: Host, call: Callable[[], Any]) -> Attempt:
    """A call that has been seen to hang."""
    attempt = host.attempt(call)
    assert not attempt.ends_within(HANGING_SECONDS), f"{call} came back"
    return attempt
