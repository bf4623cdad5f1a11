"""The reading processes of `history serve` end with it, also where a request has just been given one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.awaiting import until
from virtflow.history.remote_read.ipc import Had
from virtflow.history.remote_read.processes import AT_ONCE, FailedError, Processes
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History, Settings

SECONDS = 30.0


async def ask(processes: Processes) -> None:
    async with processes.asked(Had("", SECONDS, "name", "x")) as frames:
        await frames.next()


def test_a_request_that_is_given_a_process_at_the_end_is_refused(tmp_path: Path) -> None:
    """It would read from the process while that is being ended."""

    async def body() -> None:
        processes = Processes(Settings(history=History(path=str(tmp_path))), OwnMetrics("history-serve"))
        await processes.start()
        await until(lambda: len(processes._free) == AT_ONCE, "both processes are up")
        taken = [processes._free.pop() for _ in range(AT_ONCE)]  # as requests do that never end
        asking = asyncio.create_task(ask(processes))
        await until(lambda: bool(processes._waiting), "the request waits")
        processes._offer(taken[0])  # as a process does that has just come up
        await processes.close()
        with pytest.raises(FailedError, match="ends"):
            await asyncio.wait_for(asking, SECONDS)
        assert [each.process.returncode for each in taken] == [-9, -9]

    asyncio.run(body())
