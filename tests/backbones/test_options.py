"""The options as one value: its defaults, what it refuses, and what it costs to import."""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from backbones import BackboneError, BackboneOptions, build_backbone, build_c4

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("build", [build_backbone, build_c4])
def test_the_keywords_of_the_functions_are_the_options_and_have_their_defaults(build):
    keywords = {name: parameter.default for name, parameter in inspect.signature(build).parameters.items()}
    options = dataclasses.asdict(BackboneOptions())
    assert keywords.keys() - {"name", "weights"} == options.keys() - ({"num_classes"} if build is build_c4 else set())
    assert all(options[name] == default for name, default in keywords.items() if name in options)


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [
        ("norm", "gn", "one of ['bn', 'frozen_bn']"),
        ("stem_pool", "none", "one of ['pad1', 'ceil']"),
        ("freeze_stages", 6, "0..5"),
        ("freeze_stages", -1, "0..5"),
        ("num_classes", 0, "1..100000, or None for no classifier"),
        ("num_classes", 10**9, "1..100000, or None for no classifier"),
        ("num_classes", 2.0, "1..100000, or None for no classifier"),
        ("freeze_stages", True, "0..5"),
        ("freeze_stages", None, "0..5"),
        ("norm", ["bn"], "one of ['bn', 'frozen_bn']"),
        ("stride_in_1x1", 1, "True or False"),
    ],
)
def test_a_value_out_of_range_names_option_choices_and_value(option, value, choices):
    with pytest.raises(BackboneError) as caught:
        BackboneOptions(**{option: value})
    assert str(caught.value) == f"{option} must be {choices}, got {value!r}"


def test_options_and_errors_are_there_without_torch():
    code = "import sys, backbones.options; assert backbones.BackboneOptions().norm == 'bn'; assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
