"""The confusion matrix in a real browser: it follows the slider as the matrices of Python do."""

import numpy as np
import pytest

from detection.evaluation.confusion import confusion_matrix
from detection.report import page as page_module
from detection.report.reported import ReportedDetector, analyse
from detection.report.sections import confusion
from tests.report.scenes import HOSTILE_NAMES, scene

LISTEN = "() => { window.heard = []; report.on('show-pictures', (filter) => heard.push(filter)); }"


def many_names(count: int) -> tuple[str, ...]:
    return tuple(f"thing {number}" for number in range(count))


@pytest.fixture
def show(open_page, tmp_path, monkeypatch):
    """`show(dataset, found, width)` -> a page with this section alone, and the facts that it shows."""
    monkeypatch.setattr(page_module, "SECTIONS", [each for each in page_module.SECTIONS if each.name == "confusion"])
    monkeypatch.setattr(page_module, "FILES", ())

    def show_it(dataset, found, width: int = 1600, *, dark: bool = False):
        detector = ReportedDetector("runs/mine", dataset, found, metrics={}, class_ap={})
        page = open_page(page_module.write_report(detector, tmp_path / "report"), width, dark=dark)
        page.evaluate(LISTEN)
        return page, analyse(detector)

    return show_it


def move_to(page, score: float) -> None:
    page.locator("#confusion").get_by_label("score threshold").first.evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", round(100 * score)
    )


def shown(page) -> np.ndarray:
    """The counts in the page's cells."""
    read = "(lines) => lines.map((line) => [...line.querySelectorAll('td')].map((each) => Number(each.textContent)))"
    return np.array(page.locator("#confusion-box tbody tr").evaluate_all(read))


def heads(page) -> list[str]:
    return page.locator("#confusion-box tbody th").evaluate_all("(all) => all.map((each) => each.textContent)")


def cell(page, row: int, column: int):
    return page.locator("#confusion-box tbody tr").nth(row).locator("td").nth(column)


def matrix(analysis, score: float) -> np.ndarray:
    return confusion_matrix(analysis.matches, analysis.confusion, score)


@pytest.mark.parametrize("names", [("cat",), ("cat", "dog", "bird"), HOSTILE_NAMES])
def test_the_counts_are_those_of_python_at_every_threshold(show, names):
    page, analysis = show(*scene(class_names=names))
    assert heads(page) == [*names, "background"]
    assert (shown(page) == matrix(analysis, 0.5)).all()
    for score in (0, 0.07, 0.29, 0.57, 0.99, 1):
        move_to(page, score)
        assert page.locator("#confusion output").inner_text() == f"{score:.2f}"
        np.testing.assert_array_equal(shown(page), matrix(analysis, score))


def test_of_many_classes_the_rest_shares_a_row_and_a_column(show):
    page, analysis = show(*scene(num_images=40, class_names=many_names(60), num_objects=20))
    assert "40 of 60 classes" in page.locator("#confusion-note").inner_text()
    for score in (0, 0.5):
        move_to(page, score)
        labels = [int(name.removeprefix("thing ")) for name in heads(page)[:40]]
        assert labels == sorted(labels) and heads(page)[40:] == ["other classes", "background"]
        groups = np.full(61, 40)
        groups[labels], groups[60] = np.arange(40), 41
        expected = np.zeros((42, 42), dtype=int)
        np.add.at(expected, np.ix_(groups, groups), matrix(analysis, score))
        np.testing.assert_array_equal(shown(page), expected)


def test_classes_are_found_by_name_with_those_they_are_confused_with(show):
    page, analysis = show(*scene(num_images=40, class_names=many_names(60), num_objects=20))
    page.locator("#confusion").get_by_label("classes").fill("thing 17, 23")
    counts = matrix(analysis, 0)[:60, :60]
    pairs = counts + counts.T > 0
    partners = set(np.flatnonzero(pairs[17] | pairs[23]).tolist()) | {17, 23}
    assert heads(page)[:-2] == [f"thing {label}" for label in sorted(partners)]
    page.locator("#confusion").get_by_label("classes").fill("no such name")
    assert heads(page) == ["other classes", "background"]
    assert shown(page).sum() == matrix(analysis, 0.5).sum()


def test_shares_of_rows_and_of_columns(show):
    page, analysis = show(*scene())
    counts = matrix(analysis, 0.5)
    assert (
        cell(page, 0, 1)
        .get_attribute("title")
        .startswith(
            f"{counts[0, 1]} of {counts[0].sum()} 'cat' detected as 'dog' ({counts[0, 1] / counts[0].sum():.1%}".replace(
                "%", " %"
            )
        )
    )
    for value, axis in (("rows", 1), ("columns", 0)):
        page.get_by_label("cells show").select_option(value)
        expected = 100 * counts / np.maximum(counts.sum(axis=axis, keepdims=True), 1)
        np.testing.assert_allclose(shown(page), expected, atol=0.5 + 1e-9)
    assert cell(page, 0, 3).get_attribute("title").startswith(f"{counts[0, 3]} of {counts[0].sum()} 'cat' missed")
    background = f"{counts[3, 0]} of {counts[:, 0].sum()} detections of 'cat' are on background"
    assert cell(page, 3, 0).get_attribute("title") == background


def test_a_cell_asks_for_its_pictures_by_mouse_and_by_key(show):
    page, analysis = show(*scene())
    move_to(page, 0.1)
    cell(page, 0, 0).click()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.keyboard.press("End")
    page.keyboard.press(" ")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expected = [(0, 0), (1, 1), (1, 3), (3, 0)]
    assert (matrix(analysis, 0.1)[tuple(zip(*expected, strict=True))] > 0).all()
    assert page.evaluate("heard") == [{"trueLabel": row, "detectedLabel": column, "minScore": 0.1} for row, column in expected]
    assert page.locator("#confusion-box [tabindex='0']").count() == 1
    assert page.locator("#confusion-reading").inner_text() == cell(page, 3, 0).get_attribute("title")


def test_an_empty_cell_and_one_of_many_classes_ask_for_nothing(show):
    page, _ = show(*scene(num_images=40, class_names=many_names(60), num_objects=20))
    cell(page, 40, 40).click()
    cell(page, 41, 41).dispatch_event("click")
    assert page.evaluate("heard") == []


def test_the_list_names_the_most_frequent_confusions(show):
    page, analysis = show(*scene(num_images=30))
    items = page.locator("#confusion-list li:visible")
    for score in (0.2, 0.6):
        move_to(page, score)
        counts = matrix(analysis, score)
        pairs = [(row, column) for row in range(3) for column in range(3) if row != column and counts[row, column]]
        numbers = [counts[pair] for pair in pairs]
        assert [int(text.split(": ")[1].split()[0]) for text in items.all_inner_texts()] == sorted(numbers, reverse=True)
    items.nth(0).locator("button").click()
    (heard,) = page.evaluate("heard")
    assert counts[heard["trueLabel"], heard["detectedLabel"]] == max(numbers) and heard["minScore"] == 0.6
    move_to(page, 1)
    assert items.count() == 0 and page.locator("#confusion-none").is_visible()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1600])
def test_names_stay_in_view_and_text_can_be_read(show, width, dark):
    page, _ = show(*scene(num_images=40, class_names=many_names(60), num_objects=20), width, dark=dark)
    box = page.locator("#confusion-box")
    box.evaluate("(each) => { each.scrollTop = 300; each.scrollLeft = 300; }")
    frame = box.bounding_box()
    for name in (heads(page)[15], "background"):
        left = page.locator("#confusion-box tbody th", has_text=name).first.bounding_box()["x"]
        assert abs(left - frame["x"]) < 3
    assert abs(page.locator("#confusion-box thead th").first.bounding_box()["y"] - frame["y"]) < 3
    missed = page.locator("#confusion-box thead th").last.bounding_box()
    assert frame["x"] < missed["x"] and missed["x"] + missed["width"] <= frame["x"] + frame["width"] + 1
    assert min(page.evaluate(CONTRASTS)) > 4.5


CONTRASTS = """() => {
  const channels = (text) => {
    const numbers = text.match(/[\\d.e-]+/g).map(Number).slice(0, 3);
    return text.startsWith("color(") ? numbers : numbers.map((each) => each / 255);
  };
  const linear = (each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  const light = (text) => {
    const [red, green, blue] = channels(text).map(linear);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  return [...document.querySelectorAll("#confusion-box [role=gridcell]:not(:empty)")].map((cell) => {
    cell.style.setProperty("--shade", "48%");
    const style = getComputedStyle(cell);
    const [dim, bright] = [light(style.color), light(style.backgroundColor)].sort((a, b) => a - b);
    return (bright + 0.05) / (dim + 0.05);
  });
}"""


def test_cells_that_become_empty_say_so(show):
    page, _ = show(*scene(num_images=4))
    move_to(page, 1)
    assert shown(page)[:, :3].sum() == 0
    titles = page.locator("#confusion-box td[role=gridcell]").evaluate_all("(all) => all.map((each) => each.title)")
    assert titles[:2] == ["no 'cat' detected as 'cat'", "no 'cat' detected as 'dog'"]
    assert titles[-4:] == [f"no '{name}' detected on background" for name in ("cat", "dog", "bird")] + [""]


@pytest.mark.parametrize("num_objects", [0, 6])
def test_nothing_detected_and_nothing_to_find(show, num_objects):
    dataset, found = scene(num_images=3, num_objects=num_objects)
    page, analysis = show(dataset, {} if num_objects else found)
    assert shown(page).sum() == matrix(analysis, 0.5).sum() > 0
    assert page.locator("#confusion-none").is_visible()


def test_no_images(show):
    page, _ = show(*scene(num_images=0))
    assert shown(page).sum() == 0


def test_a_thousand_classes_are_held_to_the_cells_of_a_page(show, monkeypatch):
    monkeypatch.setattr(confusion, "MAX_CELLS", 800)
    dataset, found = scene(num_images=60, class_names=many_names(1000), num_detections=60, num_objects=20)
    page, analysis = show(dataset, found)
    data = confusion.build(analysis)
    assert 50 < len(data.names) < 1000
    assert page.evaluate("report.unpack(report.data('confusion').cells).length") <= 800
    assert f"{len(data.names)} most often confused" in page.locator("#confusion-note").inner_text()
    for score in (0, 0.5):
        move_to(page, score)
        assert shown(page).sum() == matrix(analysis, score).sum()
        label = data.labels[0]
        row = heads(page).index(f"thing {label}")
        np.testing.assert_array_equal(shown(page)[row, [row, -1]], matrix(analysis, score)[label, [label, -1]])


def test_the_most_confused_come_first():
    true, detected = np.array([0, 0, 1, 2, 3, 4, 4]), np.array([0, 0, 1, 3, 2, 1, 4])
    confident = np.array([1, 1, 1, 0, 1, 1, 1], dtype=bool)
    ranked = confusion.most_confused(true, detected, confident, np.array([9, 1, 1, 1]))
    assert ranked.tolist() == [2, 3, 0, 1]
