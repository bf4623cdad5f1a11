"""The API's parameters: what each one may be, in one table that the parser, the OpenAPI document and docs/api.md are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from virtflow.exporter.long_history.curves import CURVES
from virtflow.exporter.views.changes import What
from virtflow.exporter.views.migrations import MIGRATION_COLUMNS
from virtflow.exporter.views.nodes import NODE_COLUMNS
from virtflow.exporter.views.ring import COLUMNS as HOUR_COLUMNS
from virtflow.exporter.views.vms import COLUMNS, FLAGS
from virtflow.schemas.errors import InputError
from virtflow.schemas.jobs import Result
from virtflow.schemas.states import STATES
from virtflow.schemas.text import printable

TEXT_LENGTH: Final = 256
"""Characters that a text to look for may have."""
TIME_MAXIMUM: Final = 253_402_300_799
"""The end of the year 9999."""
STEP_MAXIMUM: Final = 366 * 86_400
LIMIT: Final = 100
LIMIT_MAXIMUM: Final = 1_000
SHOWN: Final = 80
"""Characters of a wrong value that an error repeats."""

Values = Mapping[str, str | int]


class ParameterError(InputError):
    """A parameter that can't be used: names it, its value and what is allowed."""

    def __init__(self, parameter: str, value: str, allowed: str) -> None:
        """``allowed`` in words; what is wrong of a long value is its beginning."""
        self.parameter = printable(parameter, SHOWN)
        self.value = printable(value, SHOWN)
        self.allowed = allowed
        super().__init__(f"{self.parameter}={self.value!r} is not allowed; allowed: {allowed}")


class Parameter(Struct, frozen=True):
    """One parameter. With ``choices`` it is one of them; with ``maximum`` a whole number from 1 on; else any text.

    ``signed`` choices may have a minus in front: the largest first.
    """

    name: str
    about: str
    default: str | int = ""
    choices: tuple[str, ...] = ()
    signed: bool = False
    maximum: int = 0

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return ", ".join(self.choices) + (", each with - in front for the largest first" if self.signed else "")
        if self.maximum:
            return f"a whole number from 1 to {self.maximum}"
        return f"text of at most {TEXT_LENGTH} characters"

    def parse(self, text: str) -> str | int:
        """The value; raises ``ParameterError``."""
        if self.choices:
            good = (text.removeprefix("-") if self.signed else text) in self.choices
        elif self.maximum:
            good = text.isascii() and text.isdecimal() and len(text) < SHOWN and 1 <= int(text) <= self.maximum
        else:
            good = len(text) <= (CURSOR_LENGTH if self.name == "after" else TEXT_LENGTH)
        if not good:
            raise ParameterError(self.name, text, self.allowed)
        return int(text) if self.maximum else text


CURSOR_LENGTH: Final = 16_384
"""Characters of ``after``: a VM's name of 1,024 characters is in it, escaped and encoded."""

_LIMIT = Parameter("limit", "Rows of one answer.", default=LIMIT, maximum=LIMIT_MAXIMUM)
_AFTER = Parameter("after", "`next` of the answer before: goes on after its last row.")


def _sort(choices: Iterable[str], default: str) -> Parameter:
    return Parameter("sort", "Column to sort by; what is unknown comes last.", default=default, choices=tuple(choices), signed=True)


VM_PARAMETERS: Final = (
    _sort((column.name for column in COLUMNS), "name"),
    Parameter("filter", "Text that the name, title, UUID, project, node or flavor contains, in upper or lower case."),
    Parameter("project", "Only VMs of this project, by name or id."),
    Parameter("node", "Only VMs of this node."),
    Parameter("state", "Only VMs in this state.", choices=(*STATES, "unknown")),
    Parameter("flag", "Only VMs with this flag.", choices=FLAGS),
    Parameter("history", "Adds this column of the last hour to each row.", choices=HOUR_COLUMNS),
    _LIMIT,
    _AFTER,
)
NODE_PARAMETERS: Final = (
    _sort((column.name for column in NODE_COLUMNS), "name"),
    Parameter("filter", "Text that the name contains, in upper or lower case."),
    Parameter("state", "Only nodes that are up, are down, or have calls that do not come back.", choices=("up", "down", "hung")),
    _LIMIT,
    _AFTER,
)
MIGRATION_PARAMETERS: Final = (
    _sort((column.name for column in MIGRATION_COLUMNS), "-started"),
    Parameter("filter", "Text that the VM's name or UUID contains, in upper or lower case."),
    Parameter("node", "Only migrations from or to this node."),
    Parameter("result", "Only migrations with this result.", choices=tuple(result.value for result in Result)),
    _LIMIT,
    _AFTER,
)
EVENT_PARAMETERS: Final = (
    Parameter("kind", "Only this kind of change.", choices=tuple(what.value for what in What)),
    Parameter("vm", "Only changes of the VM with this UUID."),
    Parameter("node", "Only changes of this node, or of VMs there."),
    Parameter("filter", "Text that the VM's name, its UUID or the node contains, in upper or lower case."),
    _LIMIT,
    Parameter("after", "Id of an event: only later ones. A stream goes on there, as with the header `Last-Event-ID`."),
)
HISTORY_PARAMETERS: Final = (
    Parameter("metric", "Which curve.", default=CURVES[0].name, choices=tuple(curve.name for curve in CURVES)),
    Parameter("from", "Unix seconds; a day before `to` where it is not given.", default=0, maximum=TIME_MAXIMUM),
    Parameter("to", "Unix seconds; now where it is not given.", default=0, maximum=TIME_MAXIMUM),
    Parameter(
        "step", "Seconds between two values; where it is not given, one with which they are at most 400.", default=0, maximum=STEP_MAXIMUM
    ),
)


def parse(parameters: Iterable[Parameter], given: Iterable[tuple[str, str]]) -> Values:
    """The values by name, defaults included; raises ``ParameterError`` for the first one that can't be used."""
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, str | int] = {name: parameter.default for name, parameter in known.items()}
    seen: set[str] = set()
    for name, text in given:
        if name not in known:
            raise ParameterError(name, text, f"the parameters {', '.join(known)}" if known else "no parameter at all")
        if name in seen:
            raise ParameterError(name, text, "once")
        seen.add(name)
        # An empty text is what a form sends for a field that nobody filled in.
        values[name] = known[name].parse(text) if text else known[name].default
    return values
