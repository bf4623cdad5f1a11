"""How many samples an exporter decodes: with columns only those that somebody reads one by one."""

from __future__ import annotations

import pytest

from bench.hops import VMS, Data
from tests.support.exporter_intake import Served, sent
from virtflow.exporter.columns import intake

SCRAPE_EVERY = 4
"""Rounds of samples between two scrapes."""


@pytest.mark.parametrize(("together", "decoded"), [(False, 8 * VMS), (True, VMS)])
def test_samples_decoded_for_the_scrapes_of_eight_rounds(together: bool, decoded: int, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001, a case
    """One by one all of them are; in columns the first round's alone: a VM is new once, and a scrape reads columns."""
    monkeypatch.setattr(intake, "LEAST", VMS)
    data, served = Data(), Served(together=together)
    texts = []
    for number in range(8):
        served.take(*map(sent, data.metrics[number * VMS : (number + 1) * VMS]))
        served.intake.settle()
        if number % SCRAPE_EVERY == SCRAPE_EVERY - 1:
            texts.append(served.text())
    assert served.codec.decoded == decoded
    assert [text.count("\nvm_cpu_seconds_total{") for text in texts] == [VMS, VMS]
