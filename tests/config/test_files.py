"""YAML and overrides become a frozen config; mistakes become one line that names the key and the fix."""

from pathlib import Path

import pytest

from detection.cli.arguments import any_path
from detection.config import Config, VocSource, dump_config, load_classifier_config, load_config
from detection.data.catalog import data_home
from detection.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "x.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write_file


def test_an_empty_file_is_the_papers_recipe(write):
    config = load_config(write(""))
    assert config == Config()
    assert config.rpn.anchor_sizes == (128, 256, 512) and config.rpn.anchor_ratios == (0.5, 1, 2)
    assert (config.rpn.pre_nms_train, config.rpn.post_nms_train) == (12000, 2000)
    assert (config.rpn.pre_nms_test, config.rpn.post_nms_test) == (6000, 300)
    assert config.roi.negative_iou == (0.1, 0.5) and config.roi.delta_std == (0.1, 0.1, 0.2, 0.2)
    assert config.rpn.smooth_l1_beta == pytest.approx(1 / 9)
    assert (config.test.shorter_side, config.test.longer_side, config.test.nms_threshold) == (600, 1000, 0.3)


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "0.001", "1.0e-3", ".1e-2"])
def test_scientific_numbers_are_numbers(write, number):
    assert load_config(write(f"train: {{learning_rate: {number}}}")).train.learning_rate == 0.001
    assert load_config(write(""), [f"train.learning_rate={number}"]).train.learning_rate == 0.001


def test_base_is_overlaid_key_by_key(write):
    write("rpn: {channels: 7, min_size: 3}\ndata: {classes: [a, b]}", "base.yaml")
    config = load_config(write("base: base.yaml\nrpn: {channels: 9}\ndata: {classes: [c]}"))
    assert (config.rpn.channels, config.rpn.min_size, config.data.class_names) == (9, 3, ("c",))


def test_overrides_reach_sections_and_list_items(write):
    path = write("data: {train: [{format: voc, year: 2007, split: train}]}")
    config = load_config(path, ["data.train.0.root=/data", "train.lr_drops=[5, 7]", "model.weights=null", "train.clip_norm=3"])
    assert config.data.train == (VocSource(format="voc", root=Path("/data"), year="2007", split="train"),)
    assert config.train.lr_drops == (5, 7) and config.train.clip_norm == 3


def test_the_dump_reads_back_equal(write):
    config = load_config(write("data: {train: [{format: coco, annotations: a.json, images: b}]}\ntrain: {clip_norm: 1e1}"))
    assert load_config(write(dump_config(config), "again.yaml")) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rpn: {nms_treshold: 0.5}", "unknown key 'rpn.nms_treshold' in .*x.yaml; did you mean 'rpn.nms_threshold'"),
        ("data: {train: [{format: voc, spilt: a}]}", "did you mean 'data.train.0.split'"),
        ("train: {steps: many}", "'train.steps' in .*got 'many'"),
        ("rpn: {positive_iou: 1.5}", "'rpn.positive_iou' in .*must be a number from 0 to 1, got 1.5"),
        ("data: {classes: [a, a]}", "x.yaml: data.classes must be a list of different names"),
        (
            "data: {train: [{format: xml}]}",
            "'data.train.0.format' in .* must be 'voc', 'coco', 'ilsvrc_det', 'auto', .* or 'csv', got 'xml'",
        ),
        ("[1, 2]", "must hold keys and values"),
        ("a: [", "is not valid YAML"),
        ("base: nowhere.yaml", "cannot read config .*nowhere.yaml"),
    ],
)
def test_mistakes_in_a_file_are_one_line(write, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "must look like dotted.key=value"),
        ("train.stpes=3", "did you mean 'train.steps'"),
        ("data.train.0.root=/x", "train"),
        ("train.lr_drops=[1,", "override"),
        ("output_dir.x=1", "output_dir"),
    ],
)
def test_mistakes_in_overrides_are_one_line(write, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write("output_dir: here"), [override])


def test_classifier_defaults_are_the_papers(write):
    train = load_classifier_config(write("train: {log_every: 5}")).train
    assert (train.batch_size, train.images_per_device, train.learning_rate, train.steps) == (256, 32, 0.1, 600000)
    assert (train.weight_decay, train.momentum) == (1e-4, 0.9)


@pytest.mark.parametrize("written", ["~/data", "~nobody-of-that-name/data"])
def test_a_path_in_the_users_home(tmp_path, monkeypatch, written):
    monkeypatch.setenv("HOME", str(tmp_path))
    meant = tmp_path / "data" if written == "~/data" else Path(written)
    (tmp_path / "base.yaml").write_text("train: {steps: 7}")
    (tmp_path / "mine.yaml").write_text(f"base: ~/base.yaml\noutput_dir: {written}\nmodel: {{weights: {written}}}")
    config = load_config("~/mine.yaml", [f"data.train=[{{format: voc, root: {written}, split: train}}]"])
    assert config.output_dir == config.model.weights == config.data.train[0].root == meant
    assert config.train.steps == 7
    monkeypatch.setenv("RESDET_DATASETS", written)
    assert data_home() == meant
    assert any_path(written) == meant
