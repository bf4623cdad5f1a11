"""Who asks is told by headers, whose bytes are anybody's: what is no text names no project."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from virtflow.history.remote_read.ipc import Values
from virtflow.history.remote_read.processes import FailedError, Processes
from virtflow.history.remote_read.tenants import NotAllowedError, Tenants
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History, Settings

NO_TEXT = [b"\xff\xfe", b"\xed\xa0\x80", b"pr\xc3"]


@pytest.fixture
def tenants(tmp_path: Path) -> Tenants:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret blue\n")
    return Tenants(History(tenant_header="X-Project", tenant_tokens_file=str(tokens)))


def header(given: bytes) -> str:
    """As the HTTP server gives it."""
    return given.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("given", NO_TEXT)
@pytest.mark.parametrize(
    "headers",
    [("X-Project", b"%s"), ("Authorization", b"Bearer %s"), ("Authorization", b"Virtflow %s.%s"), ("Authorization", b"Virtflow %s")],
)
def test_bytes_that_are_no_text_are_refused(tenants: Tenants, headers: tuple[str, bytes], given: bytes) -> None:
    name, value = headers
    with pytest.raises(NotAllowedError):
        tenants.of({name: header(value.replace(b"%s", given))})


@pytest.mark.parametrize("project", ["bl\u00fcte", '"; DROP', ".*", "a,b", "\U0001f600"])
def test_any_text_is_a_project(tenants: Tenants, project: str) -> None:
    assert tenants.of({"X-Project": header(project.encode())}) == project
    assert tenants.of({"Authorization": f"Virtflow {tenants.own(project)}"}) == project


def test_who_asks_what_can_not_be_passed_on_is_answered(tmp_path: Path) -> None:
    """Such a request must not wait for ever: a hundred of them and nobody is answered any more."""

    async def asked() -> None:
        processes = Processes(Settings(history=History(path=str(tmp_path))), OwnMetrics("history-serve"))
        await processes.start()
        try:
            async with processes.asked(Values(header(b"\xff"), 20.0, "uuid", 0.0, 1.0, 1)) as frames:
                await asyncio.wait_for(frames.next(), 20.0)
        finally:
            await processes.close()

    with pytest.raises(FailedError, match="a defect of virtflow"):
        asyncio.run(asked())
