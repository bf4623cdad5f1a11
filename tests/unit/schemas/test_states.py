"""Words for libvirt's numbers, held against libvirt's own constants."""

from __future__ import annotations

import libvirt
import pytest

from virtflow.schemas import states

_STATE_CONSTANTS = {
    "NOSTATE": "no_state",
    "RUNNING": "running",
    "BLOCKED": "blocked",
    "PAUSED": "paused",
    "SHUTDOWN": "shutting_down",
    "SHUTOFF": "shut_off",
    "CRASHED": "crashed",
    "PMSUSPENDED": "suspended",
}


@pytest.mark.parametrize(("constant", "word"), _STATE_CONSTANTS.items())
def test_state_words_are_libvirts(constant: str, word: str) -> None:
    """Every state has the word for the constant of its number."""
    assert states.state_word(getattr(libvirt, f"VIR_DOMAIN_{constant}")) == word


@pytest.mark.parametrize(
    ("prefix", "state"),
    [("RUNNING", 1), ("PAUSED", 3), ("SHUTDOWN", 4), ("SHUTOFF", 5), ("CRASHED", 6)],
)
def test_reason_words_are_libvirts(prefix: str, state: int) -> None:
    """The reason's word is the constant's name, in this libvirt's numbering."""
    found = 0
    for name, number in vars(libvirt).items():
        if name.startswith(f"VIR_DOMAIN_{prefix}_") and isinstance(number, int) and not name.endswith("_LAST"):
            word = name.removeprefix(f"VIR_DOMAIN_{prefix}_").lower()
            if state == states.SHUTTING_DOWN and word not in {"unknown", "user"}:
                continue
            expected = {"ioerror": "io_error"}.get(word, word)
            assert states.reason_word(state, number).replace("_", "") == expected.replace("_", "")
            found += 1
    assert found


def test_unknown_numbers_pass_through() -> None:
    """A newer libvirt's number is shown as itself."""
    assert states.state_word(42) == "42"
    assert states.reason_word(1, 99) == "99"
    assert states.reason_word(42, 3) == "3"
    assert states.state_word(-1) == "-1"
