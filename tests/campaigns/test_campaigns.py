"""A few attacks of each campaign, by its own program: it forks, so it must not share a process with other tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.child_process import child_environment
from tests.test_architecture import ROOT


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system cannot fork processes")
@pytest.mark.parametrize(("campaign", "options"), [("kill_training", ["--attempts=5"]), ("one_folder", ["--starts=3"])])
def test_a_few_of_each_show_no_fault(tmp_path: Path, campaign: str, options: list[str]) -> None:
    command = [sys.executable, "-m", f"tests.campaigns.{campaign}", *options, f"--json={tmp_path / 'report.json'}"]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["seconds"] > 0
