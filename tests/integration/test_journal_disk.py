"""The events' journal on a disk that is really full; needs root for a file system of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtflow.producer.publishing.journal import Journal

FULL = "journal_full"

LIMIT = 8 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_is_a_full_journal(small_disk: Path) -> None:
    """What fitted can be read again, half an entry never stays, and room lets it go on."""
    found = Journal(small_disk / "journal", LIMIT)
    found.open()
    messages = [b"%05d" % number * 500 for number in range(60)]
    kept = [entry for message in messages if (entry := found.append(b"uuid", message)) is not None]
    assert 0 < len(kept) < len(messages)
    assert set(found.problems) == {FULL}
    assert found.usable
    for entry in kept:
        found.delivered(entry)
    assert found.append(b"uuid", b"again") is not None
    found.close()
    last = Journal(small_disk / "journal", LIMIT)
    last.open()
    assert [entry.message for entry in last.left_behind()] == [b"again"]
    last.close()
