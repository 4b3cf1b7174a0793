"""Generated pages agree with the code and the results, and what the documentation names exists."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detection.config import load_classifier_config, load_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "datasets" / "README.md"]


def test_generated_pages_are_up_to_date():
    result = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_speed_that_the_readme_claims_was_measured():
    claim = re.search(r"\*\*Speed\*\*.*?memory", (ROOT / "README.md").read_text(), re.DOTALL)
    assert claim
    contests = json.loads((ROOT / "docs/results/benchmark.json").read_text())["contests"]
    ratios = [contest["ratios"] for contest in contests if contest["part"] == "detector"]  # training, inference
    kinds = ("fp32", "bf16")
    measured = [task[f"ours {kind}"][f"torchvision {kind}"]["speed"] for task in ratios for kind in kinds]
    assert re.findall(r"\d\.\d", claim[0]) == [f"{speed:.1f}" for speed in measured]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    for name in re.findall(r"\b((?:configs|tools|docs|datasets)/[\w/-]+\.(?:yaml|py|md))\b", page.read_text()):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_configs_are_valid_short_and_say_how_to_run_them(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert text.startswith("# ") and "#   " in text
    is_classifier = path.stem.endswith("_pretrain") or path.stem.startswith(("imagenet", "cifar"))
    (load_classifier_config if is_classifier else load_config)(path)
