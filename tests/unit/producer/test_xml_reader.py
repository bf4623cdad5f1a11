"""Which VMs' XML is read when, and what becomes of a read that hangs; libvirt's part is played by hand."""

from __future__ import annotations

import random

import pytest

from virtflow.producer.hung_calls.breaker import Breaker
from virtflow.producer.hung_calls.breaker_types import Answered, ConnectionChanged, Limits, RoundBegan
from virtflow.producer.hung_calls.budget import CallBudget, Kind
from virtflow.producer.hung_calls.reconnecting import Outbox, ReconnectingConnection
from virtflow.producer.hung_calls.xml_reader import XmlReader
from virtflow.producer.hypervisor.messages import Open, Progress, Retire, Returned, Submit
from virtflow.producer.types import HealthCheck
from virtflow.runtime.settings import Libvirt

VMS = ("a", "b", "c", "d")
NEVER_WAITS, WAITS = 9_000_000, 11_003_000
SECONDS = 1.0
STALL_TIMEOUT = 2.0


class Connection:
    """What an XML query asks: VMs that have an XML each."""

    def __init__(self) -> None:
        """Nothing has been asked."""
        self.asked: list[str] = []

    def lookupByUUIDString(self, uuid: str) -> Vm:  # noqa: N802, libvirt's name
        return Vm(self, uuid)


class Vm:
    """One VM."""

    def __init__(self, connection: Connection, uuid: str) -> None:
        """Its XML is not asked yet."""
        self._connection, self._uuid = connection, uuid

    def XMLDesc(self, flags: int) -> str:  # noqa: N802, libvirt's name
        assert flags == 0
        self._connection.asked.append(self._uuid)
        return f"<domain>{self._uuid}</domain>"


class Stage:
    """A reader with a breaker whose VMs have answered, but for those that the test says."""

    def __init__(self, version: int, limit: int = 3, occupied: tuple[str, ...] = (), silent: tuple[str, ...] = ()) -> None:
        """Connected; ``occupied`` VMs have a call of another client in them, ``silent`` ones were not asked yet."""
        self.outbox, self.budget = Outbox(), CallBudget(limit)
        self.breaker = Breaker(Limits(1.0, 2.0, 60.0), self.budget, random.Random(1))  # noqa: S311, jitter
        self.breaker.observe(ConnectionChanged(ready=True), 0.0)
        self.breaker.observe(RoundBegan(VMS, 8.0), 0.0)
        self.breaker.observe(HealthCheck({vm: 50.0 if vm in occupied else 0.0 for vm in VMS}), 0.0)
        self.breaker.observe(Answered(1, frozenset(VMS) - {*occupied, *silent}), 0.0)
        connection = ReconnectingConnection("xml", Libvirt(), self.outbox, self.budget, 10.0)
        self.hung: list[tuple[Kind, str]] = []

        def hung(kind: Kind, uuid: str, now: float) -> None:
            del now
            self.hung.append((kind, uuid))

        self.off: set[str] = set()
        self.reader = XmlReader(connection, self.breaker, lambda uuid: uuid in self.off, hung, STALL_TIMEOUT, version)
        self.submitted: list[Submit] = []
        self.retired = 0
        self.at(0.0)

    def at(self, now: float, *, settled: bool = True) -> list[Submit]:
        """Time has come to ``now``; the calls that begin. Connections open at once."""
        before = len(self.submitted)
        for _ in range(2):
            self.reader.tick(now, settled=settled)
            for action in self.outbox.take():
                match action:
                    case Open(worker):
                        self.reader.connection.opened(worker, NEVER_WAITS)
                    case Submit():
                        self.submitted.append(action)
                    case Retire():
                        self.retired += 1
        return self.submitted[before:]

    def want(self, now: float, most: int = 16) -> list[Submit]:
        """All VMs are due."""
        self.reader.want(VMS, most, now, SECONDS)
        return self.at(now)

    def reads(self, submit: Submit) -> list[str]:
        """The VMs that a call would read, in order."""
        connection = Connection()
        assert [uuid for uuid, _ in submit.query(connection)] == connection.asked
        return connection.asked

    def read(self, submit: Submit, uuid: str, now: float) -> None:
        """A VM has been read."""
        call = self.outbox.call(submit.call)
        assert call is not None
        self.reader.progress(call, Progress(submit.call, uuid, f"<{uuid}/>"), now)

    def returned(self, submit: Submit, now: float, error: Exception | None = None, *, alive: bool = True) -> None:
        """The call has returned."""
        call = self.outbox.returned(Returned(submit.call, now, now, 0.1, None, error, alive))
        assert call is not None
        self.reader.take(call, now)


@pytest.mark.usefixtures("patient")
def test_where_it_never_waits_all_are_read_but_suspects() -> None:
    """Without a lease, and without waiting for the round's monitor call."""
    stage = Stage(NEVER_WAITS, occupied=("b",), silent=("c",))
    stage.reader.want(VMS, 16, 0.0, SECONDS)
    (submit,) = stage.at(0.0, settled=False)
    assert stage.reads(submit) == ["a", "c", "d"]
    assert stage.budget.outstanding == 1, "the call of the other client alone"


@pytest.mark.usefixtures("patient")
def test_where_it_may_wait_only_vms_are_read_that_have_answered() -> None:
    """Or that have no QEMU, with a lease, and once the round's monitor call is over."""
    stage = Stage(WAITS, occupied=("b",), silent=("c", "d"))
    stage.off = {"d"}
    stage.reader.want(VMS, 16, 0.0, SECONDS)
    assert stage.at(0.0, settled=False) == []
    (submit,) = stage.at(0.0)
    assert stage.reads(submit) == ["a", "d"]
    assert stage.budget.outstanding == 2


@pytest.mark.usefixtures("patient")
def test_vms_that_may_not_be_read_take_no_place_of_others() -> None:
    stage = Stage(NEVER_WAITS, limit=5, occupied=("a", "b"))
    (submit,) = stage.want(0.0, most=1)
    assert stage.reads(submit) == ["c"]


def test_one_call_is_kept_for_the_monitors() -> None:
    """With a limit of one there is none to keep: then an inventory may cost it."""
    stage = Stage(WAITS, limit=3)
    leases = [stage.budget.acquire(Kind.MONITOR) for _ in range(2)]
    assert stage.want(0.0) == []
    for lease in leases:
        assert lease is not None
        lease.release()
    assert len(stage.at(0.0)) == 1
    assert len(Stage(WAITS, limit=1).want(0.0)) == 1


@pytest.mark.parametrize("version", [NEVER_WAITS, WAITS])
def test_a_read_that_hangs_is_left_alone_and_counted(version: int) -> None:
    """Also on a version on which that should not happen. The VM is named, and its XML, however late, is used."""
    stage = Stage(version)
    (submit,) = stage.want(0.0)
    stage.read(submit, "a", 1.0)
    stage.at(2.9)
    assert (stage.hung, stage.budget.hung) == ([], 0)
    assert stage.reader.due == 3.0
    stage.at(3.1)
    assert (stage.hung, stage.budget.hung, stage.budget.hung_vms(), stage.retired) == ([(Kind.XML, "b")], 1, frozenset({"b"}), 1)
    assert stage.reader.collect() == {"a": "<a/>"}
    stage.read(submit, "b", 600.0)
    stage.returned(submit, 600.0)
    assert stage.reader.collect() == {"b": "<b/>"}
    assert stage.budget.outstanding == 0


def test_others_are_read_on_a_new_connection_while_a_read_hangs() -> None:
    stage = Stage(WAITS)
    stage.want(0.0)
    stage.at(3.0)
    assert len(stage.want(4.0)) == 1


def test_a_round_waits_for_a_read_only_as_long_as_it_may_take() -> None:
    stage = Stage(WAITS)
    (submit,) = stage.want(0.0)
    assert stage.reader.pending(0.5)
    assert not stage.reader.pending(1.1)
    stage.returned(submit, 0.6)
    assert not stage.reader.pending(0.7)


def test_a_lost_connection_frees_what_was_under_way() -> None:
    """What hung goes on in the daemon, and counts until a health check finds the VM free."""
    stage = Stage(WAITS)
    (first,) = stage.want(0.0)
    stage.at(3.0)
    (second,) = stage.want(4.0)
    for submit in (first, second):
        stage.returned(submit, 5.0, OSError("lost"), alive=False)
    assert (stage.budget.outstanding, stage.budget.foreign_vms()) == (1, frozenset({"a"}))
    assert stage.reader.connection.worker is None


def test_a_vm_that_makes_libvirt_fail_is_not_read_again_at_once() -> None:
    stage = Stage(WAITS)
    (submit,) = stage.want(0.0)
    stage.read(submit, "a", 0.1)
    stage.returned(submit, 0.2, UnicodeDecodeError("utf-8", b"", 0, 1, "broken"))
    assert stage.reader.collect() == {"a": "<a/>", "b": ""}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queries' own clock stands still."""
    monkeypatch.setattr("virtflow.producer.hypervisor.queries.time.monotonic", lambda: 0.0)
