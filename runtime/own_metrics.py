"""What a service counts about itself, made from the catalogue's rows: names, types, help and labels stand there and nowhere else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector

from virtflow.runtime.version import version
from virtflow.schemas.catalogue.metrics import METRICS
from virtflow.schemas.catalogue.types import Metric, Own, Type

disable_created_metrics()  # type: ignore[no-untyped-call]

BUILD_INFO: Final = "virtflow_build_info"
_PLACES: Final = {metric.name: place for place, metric in enumerate(METRICS)}

ALL: Final = "all"
"""The service of a catalogue row that every service has."""


def rows_of(service: str) -> tuple[Metric, ...]:
    """The catalogue's rows of what ``service`` counts about itself, in the catalogue's order."""
    return tuple(metric for metric in METRICS if isinstance(metric.source, Own) and metric.source.service in {ALL, service})


class OwnMetrics:
    """The counters and gauges of one service, in a registry of their own.

    ``counter`` and ``gauge`` take the catalogue's name and raise ``LookupError`` for one that is not this service's: ask for them
    when the service is built, so that a wrong name shows at start. Labelled ones are used through ``.labels(...)``.
    """

    def __init__(self, service: str) -> None:
        """``service`` as the catalogue's rows name it: ``processors``, ``exporter``."""
        self._registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        for row in rows_of(service):
            if row.type is Type.COUNTER:
                self._counters[row.name] = Counter(row.name, row.help, row.labels, registry=self._registry)
            else:
                self._gauges[row.name] = Gauge(row.name, row.help, row.labels, registry=self._registry)
        self._gauges[BUILD_INFO].labels(service=service, version=version()).set(1)
        self.names: Final = frozenset(self._counters) | frozenset(self._gauges)

    def counter(self, name: str) -> Counter:
        """The counter of that name."""
        return self._counters[name]

    def gauge(self, name: str) -> Gauge:
        """The gauge of that name."""
        return self._gauges[name]

    def value(self, name: str, *labels: str) -> float:
        """What a counter or gauge stands at, for status pages and tests; 0 for labels that nothing has counted yet.

        ``labels`` are the values in the row's order.
        """
        metric = self._counters.get(name) or self._gauges[name]
        wanted = dict(zip(metric._labelnames, labels, strict=True))  # noqa: SLF001, the library offers no way to read them
        return self._registry.get_sample_value(name, wanted) or 0.0

    def render(self, names: Collection[str] | None = None) -> bytes:
        """The text exposition (version 0.0.4) of these names, of all when None; families without a sample are left out."""
        return generate_latest(_Chosen([metric for name, metric in self._by_name() if names is None or name in names]))

    def _by_name(self) -> list[tuple[str, Counter | Gauge]]:
        return sorted([*self._counters.items(), *self._gauges.items()], key=lambda item: _PLACES[item[0]])


class _Chosen(Collector):
    """Some of the metrics, in the catalogue's order; those that nothing has counted yet are left out."""

    def __init__(self, metrics: Iterable[Counter | Gauge]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Family]:
        """Their families."""
        return (family for metric in self._metrics for family in metric.collect() if family.samples)
