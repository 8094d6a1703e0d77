"""What a terminal is shown of ids and names."""

import pytest

from dae4rec_core.terminal import printable


@pytest.mark.parametrize(
    "text, shown",
    [
        ("Café noir 50\u00a0g", "Café noir 50\u00a0g"),  # a blank that doesn't break
        ("co\u00adoperate \U0001f469\u200d\U0001f52c", "co\u00adoperate \U0001f469\u200d\U0001f52c"),
        ("\x1b[2J\r\n\x9b", r"\x1b[2J\r\n\x9b"),
        ("left\u202eright\u2028\ud800", r"left\u202eright\u2028\ud800"),
    ],
)
def test_what_is_harmless_stays_and_the_rest_is_written_out(text, shown):
    assert printable(text) == shown
