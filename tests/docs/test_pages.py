"""Generated pages agree with the code and the results, and what the documentation names exists."""

import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from detection.config import load_classifier_config, load_config, load_loc_config
from docs.config_page import config_body, type_name
from docs.result_files import read_result, read_results
from docs.results_page import anchor
from tests.docs.markdown import PAGES, ROOT, headings, name_of, without_code

# A paragraph or a bullet longer than this is a wall: split it, or make a table of it.
MAX_LENGTH = 900


def test_generated_pages_are_up_to_date():
    result = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_speed_that_the_readme_claims_was_measured():
    claim = re.search(r"\*\*Speed\*\*.*?memory", (ROOT / "README.md").read_text(), re.DOTALL)
    assert claim
    measured = [
        ("benchmark", "ResNet-50 C4,", ("fp32", "bf16")),
        ("benchmark_amx", "ResNet-50 C4,", ("fp32", "bf16")),
        ("benchmark_avx2", "ResNet-50 C4 with RoI max pooling,", ("fp32",)),
    ]
    numbers = [speed for result, title, kinds in measured for speed in detector_speeds(result, title, kinds)]
    assert re.findall(r"\d\.\d", claim[0]) == [f"{speed:.1f}" for speed in numbers]


def detector_speeds(result: str, title: str, kinds: Sequence[str]) -> list[float]:
    """How many times as fast as torchvision ours is in each precision: in training, then in inference."""
    benchmarks = json.loads((ROOT / f"docs/results/{result}.json").read_text())["benchmarks"]
    tasks = [each["ratios"] for each in benchmarks if each["part"] == "detector" and each["title"].startswith(title)]
    return [task[f"ours {kind}"][f"torchvision {kind}"]["speed"] for task in tasks for kind in kinds]


@pytest.mark.parametrize("path", sorted((ROOT / "docs/results").glob("*.json")), ids=lambda path: path.stem)
def test_result_files_keep_the_schema_and_have_a_heading(path):
    assert read_result(path).heading


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notes": "one text"}, "notes: Input should be a valid tuple"),
        ({"noets": []}, "noets: Extra inputs are not permitted"),
        ({"date": "yesterday"}, "date: String should match pattern"),
        ({"commands": []}, "commands: Tuple should have at least 1 item"),
        ({"notes": ["x" * 701]}, "notes.0: String should have at most 700 characters"),
    ],
)
def test_faults_of_a_result_file_are_named(tmp_path, change, message):
    good = {"kind": "measures", "title": "t", "measures": {"AP": 0.5}, "hardware": "h", "date": "2026-01-02", "commit": "abc"}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(good | {"commands": ["make run"]} | change))
    with pytest.raises(ValueError, match="mine.json") as error:
        read_results(tmp_path)
    assert message in str(error.value)


def test_the_config_reference_names_types_choices_and_defaults():
    lines = config_body().splitlines()
    assert '| `roi.pooling` | one of `max`, `align` | `"max"` | RoI max pooling (the paper) or RoIAlign |' in lines
    assert any(line.startswith("| `rpn.sample_size` | integer 1 to 1000000 | `256` |") for line in lines)
    assert any(line.startswith("| `roi.delta_std` | list of 4 numbers 0.001 to 1000 |") for line in lines)
    assert any(line.startswith("| `train.clip_norm` | number &gt; 0 &le; 1000000000 or null | `null` |") for line in lines)
    assert not any("VOC<year>" in line for line in lines), "an HTML tag that no browser shows"
    assert type_name(tuple[int, ...]) == "list of integers" and type_name(str | None) == "text or null"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_exist(page):
    for name in re.findall(
        r"\b((?:configs|tools|docs|datasets|tests|backbones|detection)/[\w/-]+\.(?:yaml|py|md))\b", page.read_text()
    ):
        assert (ROOT / name).exists(), f"{name_of(page)} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), f"{name_of(page)} links to {target}"
        assert not fragment or fragment in {anchor(heading) for heading in headings(linked)}, f"{name_of(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_walls_of_text(page):
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*|]|\d+\.) ?)", without_code(page.read_text())):
        assert len(paragraph) <= MAX_LENGTH, f"{name_of(page)}: {len(paragraph)} characters: {paragraph[:80]}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_html_tags_that_a_browser_would_swallow(page):
    text = re.sub(r"<!--.*?-->|<https?:[^>]*>", "", without_code(page.read_text()), flags=re.DOTALL)
    assert re.findall(r"<[A-Za-z][^>\n]*>", text) == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_configs_are_valid_short_and_say_how_to_run_them(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert text.startswith("# ") and "#   " in text
    is_classifier = path.stem.endswith("_pretrain") or path.stem.startswith(("imagenet", "cifar"))
    is_localiser = path.stem.startswith("ilsvrc_loc")
    (load_classifier_config if is_classifier else load_loc_config if is_localiser else load_config)(path)


def new_names() -> list[str]:
    """Dotted names in the right columns of UPGRADING.md and of the table of functions."""
    pages = [ROOT / "UPGRADING.md", ROOT / "docs/python.md"]
    rows = [line for page in pages for line in page.read_text().splitlines() if line.startswith("| ")]
    cells = [line.rpartition(" | ")[2] for line in rows]
    return sorted({name for cell in cells for name in re.findall(r"`((?:detection|backbones)\.[\w.]+)(?=[`(])", cell)})


@pytest.mark.parametrize("name", new_names())
def test_the_new_names_of_things_exist(name):
    pkgutil.resolve_name(name)


def test_the_citation_names_the_version():
    version = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())
    assert version and f"version: {version[1]}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_page_is_tested():
    assert ROOT / "README.md" in PAGES and ROOT / "docs/training.md" in PAGES and len(PAGES) > 15
    assert all(isinstance(page, Path) for page in PAGES)
