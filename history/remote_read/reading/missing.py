"""Where a device is missing: at the next sample of its VM, at which a Prometheus' own storage would have ended its series.

A device's rows do not know when its VM was sampled next. The other devices of its kind do, mostly; the VM's own rows are read only where they
do not, which is where all devices of a kind are gone or the VM itself is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa

from virtflow.history.remote_read.reading.series import NEVER, STALE_INTERVALS, milliseconds, numbers

JITTER: Final = 1.5
"""A device is in its VM's next sample where its own comes within so many intervals."""
_DUE: Final = 0.5
"""No next sample is looked for before so much of the interval is over."""

Numbers = np.ndarray[Any, np.dtype[Any]]
Coded = tuple[Numbers, list[Any]]
"""A column as numbers, and the words by number."""
OfVms = Callable[[list[str], int, int], pa.Table]
"""Reads the samples of VMs by UUID, from and to in milliseconds, with ``uuid`` and ``time``."""


def missing_at(rows: pa.Table, vms: Coded, devices: Coded, end: int, read: OfVms) -> Numbers:
    """For each row, when the next sample of its VM is that its device is missing from (milliseconds); ``NEVER`` where there is none.

    ``rows`` are of devices of one kind in the order of VM, device and time; ``end`` is the last moment that matters.
    """
    found = np.full(rows.num_rows, NEVER)
    times, vm = milliseconds(rows), vms[0]
    same = (vm[1:] == vm[:-1]) & (devices[0][1:] == devices[0][:-1])
    own = np.append(np.where(same, times[1:], NEVER), NEVER)
    interval = numbers(rows.column("interval_seconds")) * 1000
    late = np.flatnonzero((own - times > JITTER * interval) & (times + _DUE * interval < end))
    if not len(late):
        return found
    found[late] = _next(late, times, vm, (times, vm))
    late = late[found[late] - times[late] > JITTER * interval[late]]
    if vm[0] != vm[-1]:
        # Of several VMs the newest sample shows how far the tables reach: a VM that reaches as far has no later one.
        late = late[times[late] + interval[late] < times.max()]
    if len(late):
        uuids = [vms[1][code] for code in np.unique(vm[late]).tolist()]
        last = int((times[late] + STALE_INTERVALS * interval[late]).max())
        of_vms = read(uuids, int(times[late].min()), min(end, last))
        place = {uuid: code for code, uuid in enumerate(vms[1])}
        codes = np.array([place[uuid] for uuid in of_vms.column("uuid").to_pylist()], np.int64)
        found[late] = np.minimum(found[late], _next(late, times, vm, (milliseconds(of_vms), codes)))
    return np.where(found < own, found, NEVER)


def _next(rows: Numbers, times: Numbers, vm: Numbers, sampled: tuple[Numbers, Numbers]) -> Numbers:
    """The first moment among ``sampled`` (times and VMs) that is after each of the rows and of its VM; ``NEVER`` where there is none."""
    at, of = sampled
    wanted = np.zeros(int(vm.max()) + 1, bool)
    wanted[vm[rows]] = True
    at, of = at[wanted[of]], of[wanted[of]]
    if not len(at):
        return np.full(len(rows), NEVER)
    first = min(int(at.min()), int(times[rows].min()))
    span = max(int(at.max()), int(times[rows].max())) - first + 2
    known = np.unique(of * span + (at - first))
    place = np.searchsorted(known, vm[rows] * span + (times[rows] - first), "right")
    after = known[np.minimum(place, len(known) - 1)]
    there = (place < len(known)) & (after // span == vm[rows])
    return np.where(there, after % span + first, NEVER)
