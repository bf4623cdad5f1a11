"""What every service is started with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

THREADS = 4
SERVICE = f'''
"""A service whose threads have memory of the C library's at the same time; writes how many heaps that is from."""

import ctypes
import sys
import threading

LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = LIBC.fopen.restype = ctypes.c_void_p


def run(settings, stop):
    taken, told = threading.Barrier({THREADS + 1}), threading.Barrier({THREADS + 1})

    def take():
        LIBC.malloc(ctypes.c_size_t(1000))
        taken.wait()
        told.wait()

    threads = [threading.Thread(target=take) for _ in range({THREADS})]
    for thread in threads:
        thread.start()
    taken.wait()
    file = ctypes.c_void_p(LIBC.fopen(b"heaps.xml", b"w"))
    LIBC.malloc_info(0, file)
    LIBC.fclose(file)
    told.wait()
    for thread in threads:
        thread.join()
'''
PROGRAM = "import sys; from virtflow.cli.services import serve; from virtflow.runtime.settings import Settings; serve('service', sys.argv[1], Settings())"


def heaps(folder: Path, part: str, **environment: str) -> int:
    """From how many heaps the threads of such a service took their memory."""
    (folder / "service.py").write_text(SERVICE)
    path = ":".join([*sys.path, str(folder)])
    subprocess.run([sys.executable, "-c", PROGRAM, part], check=True, cwd=folder, env={"PYTHONPATH": path, **environment})
    return (folder / "heaps.xml").read_text().count("<heap nr=")


@pytest.mark.parametrize("part", ["processors", "exporter", "history"])
def test_all_threads_of_a_service_take_their_memory_from_one_heap(part: str, tmp_path: Path) -> None:
    assert heaps(tmp_path, part) == 1


def test_the_environment_may_say_otherwise(tmp_path: Path) -> None:
    assert heaps(tmp_path, "exporter", MALLOC_ARENA_MAX="3") == 3
