"""Times as the unit writes them."""

from __future__ import annotations

import pytest

from gateway.clock import compact, from_compact


def test_a_time_is_read_as_it_is_written() -> None:
    assert compact(from_compact("20261201054158")) == "20261201054158"
    assert from_compact("20240229235959").isoformat() == "2024-02-29T23:59:59+03:00"


@pytest.mark.parametrize(
    "text",
    ["", "2026120105415", "202612010541580", "20261301054158", "20261201245858", "20261232000000", "20260229000000", "20261201056058", "20261201055960",
     "2026120105415x", "19691231235959", "00001201054158", "٢٠٢٦١٢٠١٠٥٤١٥٨", " 0261201054158", "-0261201054158"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"not 14|not a time|must be in|out of range|does not|must be"
    ):
        from_compact(text)
