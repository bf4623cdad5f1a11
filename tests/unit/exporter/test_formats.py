"""Values as people read them."""

from __future__ import annotations

import pytest

from virtflow.exporter.page.formats import ABSENT, shown


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        ("size", 0, "0 B"),
        ("size", 1023, "1023 B"),
        ("size", 1024, "1 KiB"),
        ("size", 1_610_612_736, "1.5 GiB"),
        ("size", 2.0**80, "1048576 EiB"),
        ("rate", 1536.0, "1.5 KiB/s"),
        ("per_second", 0.25, "0.25/s"),
        ("per_second", 999.4, "999/s"),
        ("per_second", 1_500.0, "1.5 k/s"),
        ("percent", 0.125, "12.5 %"),
        ("percent", 0.9996, "100 %"),
        ("percent", 0.00001, "0 %"),
        ("cores", 9.994, "9.99"),
        ("cores", 9.996, "10"),
        ("cores", 99.96, "100"),
        ("latency", 0.00085, "850 µs"),
        ("latency", 0.00125, "1.25 ms"),
        ("latency", 2.5, "2.5 s"),
        ("duration", 3.2, "3.2 s"),
        ("duration", 65, "1 min 5 s"),
        ("duration", 7_384, "2 h 3 min"),
        ("duration", 200_000, "2 d 7 h"),
        ("count", 1_234_567, "1,234,567"),
        ("clock", 1_700_000_000.9, "2023-11-14 22:13:20"),
        ("clock", 1e17, ABSENT),
        ("word", "shut_off", "shut off"),
        ("text", "a_b", "a_b"),
        ("yes", True, "yes"),
        ("yes", False, "no"),
        ("size", None, ABSENT),
        ("text", "", ABSENT),
        ("unheard of", 5, "5"),
    ],
)
def test_values_are_shown(form: str, value: object, text: str) -> None:
    assert shown(form, value) == text  # type: ignore[arg-type]
