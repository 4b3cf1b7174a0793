"""`report.table` of the shared script in a real browser, on a page with that script alone."""

import json
from typing import Any

import pytest

from detection.html import TEMPLATES

ROWS: list[list[Any]] = [["dog 10", 0.5], ["dog 9", None], ["Über <b>", 0.25], ["cat", 0.75]]


@pytest.fixture
def table(open_page, tmp_path):
    """`table(rows, **options)` shows a table and gives its page; rows that are chosen stand in `window.chosen`."""

    def show(rows, width=1600, **options):
        script = (TEMPLATES / "report" / "common.js").read_text(encoding="utf-8")
        style = (TEMPLATES / "report" / "report.css").read_text(encoding="utf-8")
        file = tmp_path / "table.html"
        styles = f"<meta charset=utf-8><style>.wide {{ overflow-x: auto }} {style}</style>"
        file.write_text(f"{styles}<main></main><script>{script}</script>", encoding="utf-8")
        page = open_page(file, width)
        options = {"head": ["class", {"label": "AP"}], "filter": "class", "rows": rows} | options
        page.evaluate(
            "(options) => { window.chosen = []; options.head[1].show = (value) => report.fixed(value, 2);"
            "if (options.choose) options.choose = (row) => { chosen.push(row); shown.mark(row); };"
            "window.shown = report.table(document.querySelector('main'), options); }",
            options,
        )
        return page

    return show


def firsts(page) -> list[str]:
    return page.locator("tbody td:first-child").all_inner_texts()


def test_columns_sort_both_ways_and_what_is_missing_stands_last(table):
    page = table(ROWS)
    assert firsts(page) == [row[0] for row in ROWS]
    page.get_by_role("button", name="AP").click()
    assert firsts(page) == ["cat", "dog 10", "Über <b>", "dog 9"]
    page.keyboard.press("Enter")
    assert firsts(page) == ["Über <b>", "dog 10", "cat", "dog 9"]
    assert page.locator("th").nth(1).get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="class").click()
    assert firsts(page) == ["cat", "dog 9", "dog 10", "Über <b>"]
    assert page.locator("td").nth(1).inner_text() == "0.75" and page.locator("th[aria-sort]").count() == 1


def test_the_filter_ignores_case_and_looks_in_text_alone(table):
    page = table(ROWS)
    box = page.get_by_label("class", exact=True)
    for text, expected in (("DOG", 2), ("<b>", 1), ("0.75", 0), ("", 4)):
        box.fill(text)
        assert page.locator("tbody tr").count() == expected
    box.fill("über")
    assert page.get_by_role("status").inner_text() == "1 of 4 rows"


def test_many_rows_are_shown_a_part_at_a_time(table):
    page = table([[f"class {number}", number / 1000] for number in range(1000)])
    assert len(firsts(page)) == 200 and "200 of 1000" in page.get_by_role("status").inner_text()
    more = page.get_by_role("button", name="show more")
    more.click()
    assert len(firsts(page)) == 400
    page.get_by_role("button", name="AP").click()
    assert len(firsts(page)) == 200 and firsts(page)[0] == "class 999"
    page.get_by_label("class", exact=True).fill("class 99")
    assert len(firsts(page)) == 11 and not more.is_visible()


def test_a_row_is_chosen_by_a_click_or_a_key_and_marked(table):
    page = table(ROWS, choose=True, sort={"column": 1, "descending": True})
    page.locator("tbody tr").nth(0).locator("td").nth(1).click()
    page.get_by_role("button", name="dog 9").press("Enter")
    assert page.evaluate("chosen") == [3, 1]
    assert page.locator("[aria-current]").inner_text().startswith("dog 9")
    page.get_by_role("button", name="AP").click()
    assert page.locator("[aria-current]").inner_text().startswith("dog 9")


def test_other_rows_and_no_rows(table):
    page = table([], width=390)
    assert firsts(page) == []
    page.evaluate(f"shown.show({json.dumps(ROWS)})")
    assert firsts(page) == [row[0] for row in ROWS]


@pytest.mark.parametrize("name", ["a very long name " * 20, "Supercalifragilistic" * 20])
def test_a_long_name_makes_no_tall_row(table, name):
    page = table([[name, 0.5], ["cat", 0.25]], 390)
    assert page.locator("tbody tr").first.bounding_box()["height"] < 4 * page.locator("tbody tr").last.bounding_box()["height"]
    assert page.locator("tbody td span").first.get_attribute("title") == name
