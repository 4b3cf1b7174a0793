"""Packed numbers are read as they were by the page's script."""

import numpy as np
import pytest

from detection.html import TEMPLATES
from detection.report.packed import packed_small


@pytest.mark.parametrize("values", [[], [0], [127, 128, 16383, 16384, 0, 2**35 - 1]])
def test_numbers_come_back(open_page, tmp_path, values):
    page = _page(open_page, tmp_path)
    assert page.evaluate("(text) => report.unpack(text)", packed_small(values)) == values


def test_small_numbers_take_little_more_than_a_byte(open_page, tmp_path):
    values = np.random.default_rng(0).integers(0, 128, 3000)
    text = packed_small(values)
    assert len(text) == 4000
    assert _page(open_page, tmp_path).evaluate("(text) => report.unpack(text)", text) == values.tolist()


@pytest.mark.parametrize("value", [-1, 2**35])
def test_what_would_not_come_back_is_not_packed(value):
    with pytest.raises(AssertionError):
        packed_small([value])


def _page(open_page, tmp_path):
    file = tmp_path / "page.html"
    script = (TEMPLATES / "report" / "common.js").read_text(encoding="utf-8")
    file.write_text(f"<meta charset=utf-8><script>{script}</script>", encoding="utf-8")
    return open_page(file)
