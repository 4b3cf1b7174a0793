"""The configs that come with the package are found by name, in any folder."""

from pathlib import Path

import pytest

from detection.config import config_file, list_configs, load_classifier_config, load_config
from detection.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_every_config_has_a_name():
    names = list_configs()
    assert len(names) == len(list(CONFIGS.rglob("*.yaml"))) and {"resdet:voc_r101", "resdet:modern/voc_r50"} <= set(names)
    assert all(config_file(name).read_text().startswith("# ") for name in names)


def test_a_name_stands_for_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("resdet:modern/voc_r50") == load_config(CONFIGS / "modern/voc_r50.yaml")
    assert load_config("resdet:voc_r101.yaml") == load_config(CONFIGS / "voc_r101.yaml")
    assert load_classifier_config("resdet:imagenet_r50") == load_classifier_config(CONFIGS / "imagenet_r50.yaml")


def test_any_other_name_is_a_path():
    assert config_file("configs/voc_r50.yaml") == Path("configs/voc_r50.yaml") == config_file(Path("configs/voc_r50.yaml"))


def test_a_packaged_config_can_be_the_base(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: resdet:modern/voc_r50\ntrain: {steps: 7}")
    config = load_config(tmp_path / "mine.yaml")
    assert config.train.steps == 7 and config.rpn == load_config("resdet:modern/voc_r50").rpn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: resdet:voc_r51", "there is no packaged config 'resdet:voc_r51'; did you mean 'resdet:voc_r50'"),
        ("base: resdet:../setup", "there is no packaged config 'resdet:../setup'; one of resdet:bccd_r18, "),
        ('base: "resdet:\\e[31m"', r"there is no packaged config 'resdet:\\x1b\[31m'"),
        ("base: resdet:" + "x" * 4000, "there is no packaged config 'resdet:xxx.{,200}; "),
        ("base: [a, b]", "'base' in .*mine.yaml must be the name of a config, got \\['a', 'b'\\]"),
    ],
)
def test_unknown_names_are_one_line(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tmp_path / "mine.yaml")
    assert "\n" not in str(caught.value)
