"""Names stay as people typed them; only what harms a terminal or has no encoding goes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.cli.output import table
from virtflow.schemas.text import REPLACEMENT, is_printable, printable

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
"""Any code points at all, lone surrogates included."""
DIRECTIONS = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
"""Unicode's bidirectional classes of what embeds, overrides or isolates."""


def harmful(character: str) -> bool:
    """By Unicode's own data: controls, separators of lines and paragraphs, surrogates, explicit directions."""
    return unicodedata.category(character) in {"Cc", "Zl", "Zp", "Cs"} or unicodedata.bidirectional(character) in DIRECTIONS


@given(ANY_TEXT)
def test_each_character_stays_or_is_replaced(text: str) -> None:
    shown = printable(text)
    assert shown == "".join(REPLACEMENT if harmful(character) else character for character in text)
    shown.encode()
    assert is_printable(shown)
    assert is_printable(text) == (shown == text)
    assert table.printable(text) == "".join("?" if harmful(character) else character for character in text)


@given(ANY_TEXT, st.integers(0, 50))
def test_a_limit_counts_characters(text: str, limit: int) -> None:
    assert printable(text, limit) == printable(text)[:limit]


@pytest.mark.parametrize(
    "name",
    [
        "10\u00a0GB",
        "\u6771\u4eac\u3000\u7b2c\u4e00",
        "1\u202f000",
        "\U0001f469\u200d\U0001f4bb",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U00011f04\U0001e4d0",
        "\ue000",
    ],
    ids=[
        "no-break space",
        "ideographic space",
        "narrow no-break space",
        "ZWJ emoji",
        "ZWNJ in Persian",
        "scripts of Unicode 15",
        "private use",
    ],
)
def test_names_as_people_type_them(name: str) -> None:
    """What Python's own ``isprintable`` would refuse."""
    assert not name.isprintable() or "\U00011f04" in name
    assert printable(name) == name == table.printable(name)
