"""What holds for every layer: in CI a skipped test is a failure, property tests are repeatable, Ctrl-C reaches what is started, --long."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from xdist.remote import Producer

from tests.support.loggers import loggers_kept
from tests.support.schedule import ByFile

pytest.register_assert_rewrite("tests.support.libvirt_contract")
os.environ.setdefault("VIRTFLOW_CHECK_THREADS", "1")
"""Which thread uses what is checked, here and in every process that the tests start."""
settings.register_profile(
    "virtflow", deadline=None, max_examples=40, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
# For a first look at a change: every test, with fewer random examples of each.
settings.register_profile("quick", settings.get_profile("virtflow"), max_examples=12)
settings.register_profile("long", settings.get_profile("virtflow"), max_examples=400)
# Enough to see that a mutant fails, without looking for the smallest example of it.
settings.register_profile("mutation", settings.get_profile("virtflow"), max_examples=25, phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("VIRTFLOW_TEST_PROFILE", "long" if os.environ.get("VIRTFLOW_TEST_LONG") else "virtflow"))
# A shell starts what runs in its background with Ctrl-C ignored, and so would every program that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _loggers_kept() -> Iterator[None]:
    """What a test, or a command that it runs in this process, sets of the log is not there for the tests after it, in whatever order they run."""
    with loggers_kept():
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--long``; tests ask ``tests.support.long``."""
    parser.addoption("--long", action="store_true", help="full-length faults, kills and builds (also VIRTFLOW_TEST_LONG=1)")


def pytest_configure(config: pytest.Config) -> None:
    """Pass ``--long`` on to test modules, which are imported later, and to every process that they start."""
    if config.getoption("--long"):
        os.environ["VIRTFLOW_TEST_LONG"] = "1"
        settings.load_profile(os.environ.get("VIRTFLOW_TEST_PROFILE", "long"))


def pytest_collection_finish() -> None:
    """Of thousands of collected tests and their modules nothing is ever garbage: looking for it took a twelfth of the fast layers' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Whole files go to workers, whatever ``--dist`` says."""
    return ByFile(config, log)


def fail_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A skip in CI hides that something was not tested: it fails there."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test, or of one of its fixtures."""
    del item, call
    report = yield
    fail_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Of a whole module."""
    del collector
    report = yield
    fail_skip(report)
    return report
