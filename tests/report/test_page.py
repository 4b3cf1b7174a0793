"""The report of one detector in a real browser."""

import pytest

from detection.report.page import write_report
from tests.report.scenes import HOSTILE_NAMES, reported, scene


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1600])
def test_the_page_opens_without_a_complaint(open_page, tmp_path, width, dark):
    index = write_report(reported(*scene(folder=tmp_path)), tmp_path / "report")
    page = open_page(index, width, dark=dark)
    assert page.locator("h1").inner_text() == "runs/mine"


def test_names_are_text_and_never_markup(open_page, tmp_path):
    index = write_report(reported(*scene(class_names=HOSTILE_NAMES, folder=tmp_path), "<i>run</i>"), tmp_path / "report")
    page = open_page(index)
    assert page.locator("h1").inner_text() == "<i>run</i>"
    assert page.locator("i").count() == 0 and page.locator("h1 *").count() == 0
