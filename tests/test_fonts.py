"""Names in pictures and plots: any script, no formula, no warning."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from detection import fonts
from detection.analysis.curves import CurvePlot, PlottedRun, plot_curves
from detection.engine.run_curves import MetricCurve
from detection.fonts import default_font, drawable, font_for, plot_families, plot_text
from detection.visualize import draw_boxes

NAMES = ["cat", "a$b$", "$", r"\$x$", r"\frac{$", "_x", "猫", "قطة", "می\u200cخواهم", "क्ष", "\U0001f469\u200d\U0001f680", "Ωж",
         "[/x]", "<b>&", "%s{}", "\x1b[31m", "a\nb", "\ud800", "", " ", "x" * 200, "\u202eabc"]  # fmt: skip


@pytest.fixture
def no_system_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "_system_fonts", dict)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_drawn_without_a_warning(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw_boxes(
            np.zeros((60, 90, 3), np.uint8), np.array([[5.0, 20, 50, 50]]), np.array([0]), [name], np.array([0.5])
        )
        curve = MetricCurve([1, 2], [1.0, 0.5])
        plot_curves(CurvePlot(None, "loss", [PlottedRun(name or "a run", None, curve)]), tmp_path / "a.png")
    assert drawn.any()


def test_what_dejavu_has_is_drawn_in_it():
    for name in ("cat", "Vögel", "Ωж", "قطة"):
        assert font_for(name) == default_font() and drawable(name, [default_font()]) == name and plot_families([name]) is None


def test_a_character_that_no_font_has_is_its_code_point(no_system_fonts):
    assert font_for("猫 cat") == default_font()
    assert drawable("猫 cat\n", [default_font()]) == "\\u732b cat\\n"
    assert plot_text("猫$") == r"\u732b\$"


def test_a_font_of_the_system_draws_what_dejavu_lacks(monkeypatch, tmp_path):
    other = tmp_path / "other.ttf"
    monkeypatch.setattr(fonts, "_system_fonts", lambda: {"Other": other})
    monkeypatch.setattr(fonts, "_characters", lambda font: frozenset(map(ord, "猫é" if font == other else "é")))
    assert font_for("猫") == other and font_for("é") == default_font()
    assert drawable("猫犬", [other]) == "猫\\u72ac"
    assert plot_families(["cat", "猫"]) == ["DejaVu Sans", "Other"]


@pytest.mark.parametrize("name", ["a$b$", "$", r"\$x$", r"a\$b", "$$", r"\\$"])
def test_matplotlib_draws_dollars_as_they_are(name):
    figure = Figure()
    text = figure.text(0, 0, plot_text(name))
    preprocess = getattr(text, "_preprocess_math")  # noqa: B009
    drawn, formula = preprocess(text.get_text())
    assert (drawn, formula) == (name, False)
