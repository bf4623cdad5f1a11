"""The answer of the API about a VM's long history, and its parameters' meaning."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from virtflow.exporter.long_history.client import Values
from virtflow.exporter.long_history.curves import BY_NAME
from virtflow.exporter.long_history.periods import Period


class VmHistory(Struct, frozen=True, kw_only=True):
    """One curve of a VM from the history server: a value for each time, the mean of the step before it."""

    uuid: Annotated[str, Meta(description="The VM's UUID.")]
    metric: Annotated[str, Meta(description="Which curve it is: the parameter `metric`.")]
    unit: Annotated[str, Meta(description="`cores`, `bytes`, `bytes_per_second` or `seconds`; of counters it is their growth per second.")]
    step_seconds: Annotated[int, Meta(description="Time between two values.")]
    times: Annotated[list[int], Meta(description="Unix seconds, all multiples of the step.")]
    values: Annotated[list[float | None], Meta(description="A value for each time; null where the history has none.")]


def vm_history(uuid: str, metric: str, period: Period, values: Values) -> VmHistory:
    """The answer."""
    return VmHistory(uuid=uuid, metric=metric, unit=BY_NAME[metric].unit, step_seconds=period.step, times=period.times, values=values)
