"""The documentation site builds without a network, strictly: a broken link or a missing page fails."""

import os
import re
import subprocess
import sys

import pytest

from docs.site_hooks import api_page, packages
from tests.docs.markdown import ROOT


@pytest.fixture(scope="module")
def site(module_path):
    """The built site, in a folder of the test's."""
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    # A proxy that nobody answers: what needs the network fails.
    nowhere = "http://127.0.0.1:9"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", module_path / "site"],
        cwd=ROOT,
        env=os.environ | {"http_proxy": nowhere, "https_proxy": nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return module_path / "site"


def test_the_site_has_every_page_and_an_api_reference(site):
    for name in ("index", "training", "config", "results", "api/backbones", "api/detection.modeling"):
        assert (site / f"{name}.html").exists()
    text = (site / "api/detection.modeling.html").read_text()
    assert "detection.modeling.boxes.pairwise_iou" in text and "IoU of every pair" in text


def test_pages_fetch_nothing_from_elsewhere(site):
    for page in (site / "index.html", site / "api/backbones.html"):
        tags = re.findall(r"<(?:script|img|link)\b[^>]*>", page.read_text())
        assert [tag for tag in tags if re.search(r'(?:src|href)="(?:https?:)?//', tag)] == []


def test_a_newcomer_gets_there_in_three_clicks():
    index = (ROOT / "docs/index.md").read_text()
    for page in ("custom-data.md", "inference.md", "results.md", "backbones.md", "architecture.md"):
        assert f"]({page}" in index


def test_every_package_has_a_page_but_the_commands():
    names = packages()
    assert {"backbones", "backbones.weights", "detection", "detection.data", "detection.training"} <= set(names)
    assert not any("cli" in name for name in names)
    assert "::: detection.modeling.boxes" in api_page("detection.modeling")
