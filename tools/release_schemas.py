"""Makes the current schemas and metric names a release that is kept indefinitely: ``.venv/bin/python -m tools.release_schemas VERSION``.

Writes ``schemas/released/VERSION/*.avsc`` (shipped, so that every reader knows every release), golden messages under
``tests/contract/data/VERSION`` and adds the names to ``schemas/released/metrics.txt``, ``scaling.txt`` and ``rules.txt``. Never changes what was released before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from msgspec import inspect

from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.catalogue.metrics import METRICS
from virtflow.schemas.catalogue.scaling import SCALING_METRICS, ScalingMetric
from virtflow.schemas.catalogue.types import Metric, Stability
from virtflow.schemas.records import RECORDS

ROOT: Final = Path(__file__).resolve().parent.parent
RELEASED: Final = ROOT / "schemas" / "released"
NAMES: Final = RELEASED / "metrics.txt"
SCALING_NAMES: Final = RELEASED / "scaling.txt"
RULE_NAMES: Final = RELEASED / "rules.txt"
GOLDEN: Final = ROOT / "tests" / "contract" / "data"
TRUE: Final[dict[str, Any]] = {
    "uuid": "d4e232be-ede6-48cb-9c15-42cde320a1fc",
    "collected": 1_795_476_243.5,
    "monitor_collected": 1_795_476_242.5,
    "interval": 10.0,
    "sequence": 41,
    "part": 1,
}
"""Fields that are checked on reading; a time among libvirt's own counters is none of them."""


def released_line(metric: Metric) -> str:
    """What is promised of a metric, as one line of the file of released names."""
    return f"{metric.name} {metric.type} {metric.unit or '-'} {','.join(metric.labels) or '-'}"


def released_lines() -> list[str]:
    """The line of every stable metric, sorted."""
    return sorted(released_line(metric) for metric in METRICS if metric.stability is Stability.STABLE)


def scaling_lines() -> list[str]:
    """The line of every metric of the Kubernetes API adapter, sorted: its name, its unit, what it is made of and its labels."""
    return sorted(
        " ".join([metric.name, metric.unit or "-", _made_of(metric), ",".join(metric.labels) or "-"]) for metric in SCALING_METRICS
    )


def rule_lines() -> list[str]:
    """The name of every recording rule, sorted: dashboards and alerts of others are made of them."""
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())["groups"]
    return sorted(rule["record"] for group in groups for rule in group["rules"])


def _made_of(metric: ScalingMetric) -> str:
    parts = (("", metric.add), ("-", metric.subtract), ("/", metric.per))
    return ",".join(f"{sign}{row.name}" for sign, rows in parts for row in rows)


def golden_record(kind: type[msgspec.Struct]) -> Any:  # noqa: ANN401, one of the records
    """A record with a value of its own in every field, always the same."""
    return _filled(inspect.type_info(kind), iter(range(1, 1_000_000)))


def _filled(info: inspect.Type, numbers: Any) -> Any:  # noqa: ANN401, plain data and records
    match info:
        case inspect.IntType():
            return next(numbers)
        case inspect.FloatType():
            return next(numbers) + 0.25
        case inspect.StrType():
            return f"text-{next(numbers)}-\u00e9\u4e16"
        case inspect.ListType(item_type=item):
            return [_filled(item, numbers), _filled(item, numbers)]
        case inspect.DictType(value_type=value):
            return {"first": _filled(value, numbers), "second": _filled(value, numbers)}
        case inspect.StructType(cls=cls, fields=fields):
            return cls(**{field.name: _value(field, numbers) for field in fields})
        case _:
            raise TypeError(f"no golden value for {info!r}")


def _value(field: inspect.Field, numbers: Any) -> Any:  # noqa: ANN401, plain data and records
    if field.name == "time" and isinstance(field.type, inspect.FloatType):
        return TRUE["collected"]
    return TRUE[field.name] if field.name in TRUE else _filled(field.type, numbers)


def main() -> int:
    """Writes one release; 1 when there is one of that name already, 2 for wrong use."""
    match sys.argv[1:]:
        case [name] if name.isdecimal():
            release = name
        case _:
            print(__doc__)
            return 2
    folder, golden = RELEASED / release, GOLDEN / release
    if folder.exists() or golden.exists():
        print(f"release {release} is there already and never changes: choose the next number")
        return 1
    folder.mkdir(parents=True)
    golden.mkdir(parents=True)
    codec = Codec()
    for record in RECORDS:
        name = record.__name__
        (folder / f"{name}.avsc").write_text(json.dumps(schema_of(record), indent=1) + "\n")
        example = golden_record(record)
        (golden / f"{name}.bin").write_bytes(codec.encode(example))
        (golden / f"{name}.json").write_text(json.dumps(msgspec.to_builtins(example), indent=1) + "\n")
    for file, lines in ((NAMES, released_lines()), (SCALING_NAMES, scaling_lines()), (RULE_NAMES, rule_lines())):
        before = set(file.read_text().splitlines()) if file.exists() else set()
        file.write_text("\n".join(sorted(before | set(lines))) + "\n")
    print(f"release {release}: {len(RECORDS)} schemas, {len(METRICS)} metrics")
    return 0


if __name__ == "__main__":
    sys.exit(main())
