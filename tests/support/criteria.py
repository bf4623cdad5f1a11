"""What holds for every fault, whatever it is: the services that a test starts are looked at for as long as the test lasts.

No process exits unless the test says so; each problem is logged at most once a minute, and nothing is printed that is no log line; health
answers in under a second; memory, threads and descriptors are back where they were once the fault is over. A service's double in
``tests/support`` says when it starts and when the test ends it (``started``, ``ends``): that is all a service needs to be watched.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Self

from tests.support.figures import figure
from tests.support.pages import PAGE_SECONDS, page
from tests.support.watching import Watching

HEALTH_SECONDS: Final = 1.0
STALL_SECONDS: Final = 0.3
"""A pause of this process' own that long means that the machine stood still: an answer that took long then says nothing."""
LOG_SECONDS: Final = 59.0
SETTLED_SECONDS: Final = 40.0
MEMORY_SHARE: Final = 1.25
MEMORY_BYTES: Final = 32 << 20
THREADS: Final = 10
"""Arrow starts its eight threads for files, and one for each CPU, one by one as they are needed."""
DESCRIPTORS: Final = 8
CLIENT: Final = "rdk:main"
"""The thread that each client of librdkafka has once."""
_TEXT: Final = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z (?P<level>\w+) +(?P<logger>[\w.]+): (?P<message>.*)$")
_LAST_WORDS: Final = "virtflow: "
_HELD_BACK: Final = re.compile(r" \(\d+ more like it held back\)$")
_VARIABLE: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\b[0-9a-f]{8,}\b|\d+(\.\d+)?|\S*/\S*")


class Line(NamedTuple):
    """A line of a service's log."""

    seconds: float
    level: str
    problem: str
    """The logger and the message without what differs from time to time."""
    text: str


class Usage(NamedTuple):
    """What a process takes at a time."""

    memory_bytes: int
    threads: int
    descriptors: int
    clients: int = 0
    """Kafka clients of librdkafka."""


@dataclass
class Run:
    """One run of a service: its process, its pages' address, and where its log begins."""

    name: str
    process: subprocess.Popen[bytes]
    address: str
    log: Path
    log_begin: int
    over: bool = False
    """The test has ended it, or is about to."""
    log_end: int | None = None
    healthy: bool = False
    slowest: float = 0.0
    baseline: Usage | None = None
    end: str = ""
    """How it ended by itself, unless the test has awaited that."""
    wrong: list[str] = field(default_factory=list)


_active: list[Criteria] = []


def started(name: str, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """A service of the test's has been started; ``address`` is where its pages are."""
    begin = log.stat().st_size if log.exists() else 0
    for criteria in _active:
        criteria.runs.append(Run(name, process, address, log, begin))


def ends(process: subprocess.Popen[bytes] | None) -> None:
    """The test is about to end it, or to await its end."""
    for criteria in _active:
        for run in criteria.runs:
            if run.process is process:
                run.end = ""
                run.log_end = run.log.stat().st_size if run.over else None
                run.over = True


class Criteria(Watching):
    """All services that are started while the context lasts. ``violations`` says what did not hold."""

    pause_seconds = 0.25

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.runs: list[Run] = []
        self._ticks = Ticks()
        self._allowed: list[re.Pattern[str]] = []

    def __enter__(self) -> Self:
        """Watches from now on."""
        _active.append(self)
        self._ticks.start()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Watches no more."""
        super().__exit__(None, None, None)
        self._ticks.stop()
        _active.remove(self)

    def look(self) -> None:
        """Looks once at every service."""
        for run in list(self.runs):
            if run.over:
                continue
            code = run.process.poll()
            if code is not None:
                if not run.over:
                    run.over = True
                    run.end = f"{run.name} has ended by itself with {code}: {run.log.read_text(errors='replace')[-1500:]}"
                continue
            self._ask(run)

    def _ask(self, run: Run) -> None:
        if not run.address:
            return  # a service without pages, as a producer is
        before, waited = _stopped(run.process.pid), waited_seconds(run.process.pid)
        self._ticks.reset()
        began = time.monotonic()
        status, _ = page(run.address, "/healthz")
        wall = time.monotonic() - began
        # What it waited for a CPU, which others had, is not its own doing.
        took = max(0.0, wall - (waited_seconds(run.process.pid) - waited))
        if run.over or before or _stopped(run.process.pid) or run.process.poll() is not None:
            return
        if not run.healthy:
            run.healthy = status == 200
            return
        if self._ticks.longest > STALL_SECONDS:
            return
        run.slowest = max(run.slowest, took)
        refused = status != 200 and wall < PAGE_SECONDS  # later it was this test that gave up
        if refused or took > HEALTH_SECONDS:
            run.wrong.append(f"{run.name}: /healthz answered {status} after {took:.2f} s")

    def baseline(self) -> None:
        """What the services take now is what they are to take again once the fault is over."""
        for run in self.runs:
            if not run.over:
                run.baseline = usage(run.process.pid)

    def settled(self, *, row: int, seconds: float = SETTLED_SECONDS) -> None:
        """Waits until every service that has a baseline is back at it, and the successors of those that were restarted are too."""
        baselines = {run.name: run.baseline for run in self.runs if run.baseline is not None}
        deadline = time.monotonic() + seconds
        for run in [run for run in self.runs if not run.over and run.name in baselines]:
            base = baselines[run.name]
            assert base is not None
            while beyond := exceeded(base, now := usage(run.process.pid)):
                assert time.monotonic() < deadline, f"{run.name}: {beyond}: {now} where it was {base}; {_names(run.process.pid)}"
                time.sleep(0.2)
            figure(row, f"{run.name}: memory before", round(base.memory_bytes / 2**20), "MiB")
            figure(row, f"{run.name}: memory after", round(now.memory_bytes / 2**20), "MiB")

    def tells(self, what: str, told: Callable[[], bool], *, row: int, seconds: float) -> None:
        """Waits until the own metrics tell the fault, which is about to begin or has begun just now: within two intervals."""
        began = time.monotonic()
        self.await_seen(told, seconds, f"{what} is told by the own metrics")
        figure(row, f"{what}: told after", round(time.monotonic() - began, 1), "s")

    def allow(self, pattern: str) -> None:
        """Lines that this test's fault brings and that are no log lines of ours; to be given with a reason at the call."""
        self._allowed.append(re.compile(pattern))

    def violations(self) -> list[str]:
        """Everything that did not hold, service by service."""
        found = [run.end for run in self.runs if run.end] + [wrong for run in self.runs for wrong in run.wrong]
        for run in self.runs:
            lines, strays = self._lines(run)
            found += [f"{run.name} prints what is no log line: {stray}" for stray in strays[:3]]
            found += [f"{run.name} logs twice within a minute: {text}" for text in repeated(lines)]
        return found

    def slowest(self) -> float:
        """The longest that an answer of /healthz took, in seconds."""
        return max((run.slowest for run in self.runs), default=0.0)

    def _lines(self, run: Run) -> tuple[list[Line], list[str]]:
        with run.log.open("rb") as log:
            log.seek(run.log_begin)
            text = log.read(-1 if run.log_end is None else run.log_end - run.log_begin).decode(errors="replace")
        lines, strays = [], []
        for each in text.splitlines()[: None if text.endswith("\n") else -1]:
            line = parsed(each)
            if line is not None:
                lines.append(line)
            elif not each.startswith(_LAST_WORDS) and not any(pattern.search(each) for pattern in self._allowed):
                strays.append(each)
        return lines, strays


class Ticks(threading.Thread):
    """Notes how long this process was not run at a stretch."""

    def __init__(self) -> None:
        """Begins with ``start``."""
        super().__init__(daemon=True)
        self._longest = 0.0
        self._last = time.monotonic()
        self._over = threading.Event()

    @property
    def longest(self) -> float:
        """The longest pause in seconds, one that lasts yet included."""
        return max(self._longest, time.monotonic() - self._last)

    def run(self) -> None:
        """Until ``stop``."""
        while not self._over.wait(0.02):
            now = time.monotonic()
            self._longest, self._last = max(self._longest, now - self._last), now

    def reset(self) -> None:
        """From now on."""
        self._longest = 0.0

    def stop(self) -> None:
        """Ends it."""
        self._over.set()
        self.join()


def parsed(text: str) -> Line | None:
    """A line of a service's log, as text or as JSON; None where it is none."""
    if text.startswith("{"):
        try:
            entry = json.loads(text)
            return Line(entry["time"], entry["level"], _problem(entry["logger"], entry["message"]), text)
        except (ValueError, KeyError):
            return None
    if (found := _TEXT.match(text)) is None:
        return None
    stamp, millis = text[:19], int(text[20:23])
    seconds = time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S")) + millis / 1000
    return Line(seconds, found["level"], _problem(found["logger"], found["message"]), text)


def _problem(logger: str, message: str) -> str:
    return f"{logger}: {_VARIABLE.sub('#', _HELD_BACK.sub('', message))}"


def repeated(lines: list[Line]) -> list[str]:
    """The warnings and errors that came again within a minute."""
    last: dict[str, float] = {}
    found = []
    for line in lines:
        if line.level not in {"warning", "error", "critical"}:
            continue
        if line.seconds - last.get(line.problem, float("-inf")) < LOG_SECONDS:
            found.append(line.text)
        last[line.problem] = line.seconds
    return found


def usage(pid: int) -> Usage:
    """What a process takes now; its memory is its own, without files that are mapped."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Usage(int(status["RssAnon"].split()[0]) << 10, _threads(pid), descriptors, _names(pid)[CLIENT])


def _threads(pid: int) -> int:
    """All threads but those in which the history's table library reads the commits since a checkpoint: their number follows that of the commits."""
    return sum(number for name, number in _names(pid).items() if name != "tokio-rt-worker")


def _names(pid: int) -> Counter[str]:
    """How many threads of each name it has."""
    names: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            names[(task / "comm").read_text().strip()] += 1
    return names


def exceeded(base: Usage, now: Usage) -> str:
    """What is beyond the baseline by more than clients and allocators differ from time to time; "" where nothing is."""
    beyond = {
        "memory": now.memory_bytes > base.memory_bytes * MEMORY_SHARE + MEMORY_BYTES,
        "threads": now.threads > base.threads + THREADS,
        "descriptors": now.descriptors > base.descriptors + DESCRIPTORS,
        "Kafka clients": now.clients > base.clients,
    }
    return ", ".join(name for name, is_beyond in beyond.items() if is_beyond)


def waited_seconds(pid: int) -> float:
    """How long the threads of a process were ready to run and had no CPU, since they began."""
    waited = 0
    with suppress(FileNotFoundError, ProcessLookupError):  # a thread has ended meanwhile, or all of it
        for task in Path(f"/proc/{pid}/task").iterdir():
            waited += int((task / "schedstat").read_text().split()[1])
    return waited / 1e9


def _stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"T", "t"}
    except (FileNotFoundError, ProcessLookupError):
        return False
