"""VMs, job statistics and refusals as libvirt gives them, for tests of what is asked about jobs."""

from __future__ import annotations

import libvirt

A, B = "01c4627c-7455-4be4-b014-9523f6d7e739", "00000000-0000-4000-8000-000000000001"
C = "00000000-0000-4000-8000-000000000002"
OUT = {"type": 2, "operation": 5, "time_elapsed": 1000}
NONE = {"type": 0}
MOMENT = 1_795_476_000.0


class Refused(libvirt.libvirtError):  # type: ignore[misc]
    """An error of libvirt's with a code."""

    def __init__(self, code: int) -> None:
        """As if libvirt had said it."""
        super().__init__("refused")
        self._code = code

    def get_error_code(self) -> int:
        return self._code
