"""The chain from a classifier to the table of errors: what it leaves, and that a stopped one goes on as if it had not been."""

import json
import signal
from pathlib import Path

import pytest
import torch

from backbones import build_backbone, load_checkpoint
from detection.config import LocConfig, dump_config, parse_config
from detection.engine.callbacks import Callback, StopTraining
from detection.errors import CheckpointError, ConfigError, TrainingError
from detection.localisation import train_localiser
from detection.localisation.checkpoints import load_rcnn, load_rpn
from detection.localisation.images import read_loc_images
from detection.localisation.proposal_store import StoredProposals
from detection.localisation.results import LocRow, centre_boxes, mean_share, read_rows
from detection.pretraining.model import ClassificationModel
from detection.weights.checkpoint import CheckpointMetadata, write_checkpoint
from tests.localisation.loc_kit import make_config, write_loc
from tests.localisation.small_localiser import small_backbones

NARROW = {"model": {"backbone": "narrow"}}
CLASSES = ("n01", "n02", "n03")


@pytest.fixture(autouse=True, scope="module")
def backbones():
    with small_backbones():
        yield


@pytest.fixture(scope="module")
def root(module_path) -> Path:
    return write_loc(module_path / "loc")


def config_for(root: Path, output_dir: Path, **sections) -> LocConfig:
    """Two steps of each stage, evaluated and saved after each; four proposals per image."""
    solver = {"steps": 2, "eval_every": 1, "checkpoint_every": 1}
    defaults = {
        "model": {"backbone": "tiny"},
        "rpn": {"anchor_sizes": [24, 48], "anchor_ratios": [1.0]},
        "rcnn": {"num_proposals": 4},
        "test": {"scales": [64], "longer_side": 160},
    }
    train = make_config(root).rpn_train.model_dump(mode="json") | solver
    stages = {"rpn_train": train, "rcnn_train": train}
    return make_config(root, output_dir, **{**defaults, **stages, **sections})


def write_classifier(path: Path, names=CLASSES, backbone: str = "narrow") -> Path:
    """A random classifier's checkpoint."""
    torch.manual_seed(3)
    model = ClassificationModel(build_backbone(backbone, num_classes=len(names)), names)
    about = CheckpointMetadata(
        "classifier", names, model.backbone.preprocessing, {"model": {"backbone": backbone, "stride_in_1x1": False}}
    )
    write_checkpoint(about, model.state_dict(), path)
    return path


class StopAt(Callback):
    """Sends this process a signal after a step of the n-th run that it follows."""

    def __init__(self, run: int, step: int) -> None:
        self.left, self.step = run, step

    def on_start(self, info) -> None:
        self.left -= 1

    def on_log(self, line) -> None:
        if self.left == 0 and line["step"] == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def chain(root, module_path):
    """An uninterrupted chain: its config, result and what it said."""
    told: list[str] = []
    config = config_for(root, module_path / "whole")
    return config, train_localiser(config, tell=told.append), told


def models_of(output_dir: Path) -> dict[str, torch.Tensor]:
    return {
        f"{stage}.{key}": value
        for stage in ("rpn", "rcnn")
        for key, value in load_checkpoint(output_dir / stage / "last.pt")["model"].items()
    }


def require_equal(first: Path, second: Path) -> None:
    """The weights of both stages, the proposals and the table are the same to the last bit."""
    one, two = models_of(first), models_of(second)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    files = sorted(file.name for file in (first / "proposals").iterdir())
    assert files == ["00000.safetensors", "proposals.json"]
    assert all((first / "proposals" / name).read_bytes() == (second / "proposals" / name).read_bytes() for name in files)
    tables = [json.loads((folder / "results.json").read_text())["rows"] for folder in (first, second)]
    assert tables[0] == tables[1]


def test_what_a_chain_leaves(chain):
    config, result, told = chain
    assert not result.interrupted and result.stopped_by is None
    for stage, load in (("rpn", load_rpn), ("rcnn", load_rcnn)):
        folder = config.output_dir / stage
        assert {"last.pt", "best.pt", "metrics.jsonl", "config.yaml"} <= {file.name for file in folder.iterdir()}
        model = load(folder / "best.pt")
        assert model.class_names == CLASSES and model.config == config
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        evaluated = [record for record in records if record["kind"] == "evaluation"]
        assert [record["step"] for record in evaluated] == [1, 2]
        assert all(0 <= record["metrics"]["gt_class_error"] <= 1 for record in evaluated)
    training = read_loc_images(config.data, config.data.train)
    stored = StoredProposals.open(config.output_dir / "proposals", training)
    assert len(stored) == 6 and all(1 <= len(stored.boxes(index)) <= 4 for index in range(6))
    assert [line for line in told if line.startswith("stage")] == [
        "stage 1 of 3: the RPN",
        "stage 2 of 3: the RPN's proposals, 4 of each training image's class",
        "stage 3 of 3: the R-CNN on these proposals",
    ]
    assert any("only errors of the true class's box will be measured" in line for line in told)


def test_the_table(chain):
    config, result, _ = chain
    assert [row.title for row in result.rows] == [
        "all of the image",
        "centre box of mean size",
        "RPN, centre view",
        "RPN, dense",
        "RPN + R-CNN, dense",
    ]
    assert all(0 <= row.gt_class_error <= 1 and row.localisation_error is None for row in result.rows)
    assert [dict(row.paper) for row in result.rows[2:]] == [
        {"gt_class_error": 0.133},
        {"gt_class_error": 0.117, "localisation_error": 0.144},
        {"localisation_error": 0.106},
    ]
    written = json.loads((config.output_dir / "results.json").read_text())
    assert (written["images"], written["not_evaluated"]) == (6, 1)
    assert [row["gt_class_error"] for row in written["rows"]] == [row.gt_class_error for row in result.rows]
    assert read_rows(config.output_dir / "results.json", config) == result.rows
    other = config.model_copy(update={"test": config.test.model_copy(update={"flip": True})})
    assert read_rows(config.output_dir / "results.json", other) is None


def test_a_finished_chain_repeats_nothing(chain, monkeypatch):
    config, result, _ = chain
    before = {file: file.stat().st_mtime_ns for file in config.output_dir.rglob("*.pt")}
    monkeypatch.setattr("detection.localisation.train.measure_rows", None)
    monkeypatch.setattr("detection.localisation.proposals.find_boxes_at", None)
    again = train_localiser(config, resume=True)
    assert again.rows == result.rows
    assert {file: file.stat().st_mtime_ns for file in config.output_dir.rglob("*.pt")} == before


@pytest.mark.parametrize(("run", "stage"), [(1, "rpn"), (2, "rcnn")])
def test_a_stopped_chain_goes_on_as_if_it_had_not_been(chain, root, tmp_path, run, stage):
    config = config_for(root, tmp_path / "run")
    stopped = train_localiser(config, callbacks=[StopAt(run, 1)])
    assert stopped.interrupted and stopped.signal == signal.SIGTERM and not stopped.rows
    assert (stopped.stage, stopped.steps) == (stage, 1)
    assert not (config.output_dir / "results.json").exists()
    result = train_localiser(config, resume=True)
    assert result.rows == chain[1].rows
    require_equal(chain[0].output_dir, config.output_dir)


def test_a_chain_stopped_between_its_trainings_goes_on_too(chain, root, tmp_path, monkeypatch):
    config = config_for(root, tmp_path / "run")

    def tell(line: str) -> None:
        if line.startswith("stage 2"):
            # The signal comes while the first proposals are made.
            monkeypatch.setattr("detection.localisation.proposals._best_of", raising(monkeypatch))

    stopped = train_localiser(config, tell=tell)
    assert stopped.signal == signal.SIGINT and stopped.stage == "proposals"
    assert [file.name for file in (config.output_dir / "proposals").iterdir()] == ["proposals.json"]
    train_localiser(config, resume=True)
    require_equal(chain[0].output_dir, config.output_dir)


def raising(monkeypatch):
    from detection.localisation.proposals import _best_of

    def best_of(*arguments):
        monkeypatch.setattr("detection.localisation.proposals._best_of", _best_of)
        signal.raise_signal(signal.SIGINT)
        return _best_of(*arguments)

    return best_of


def test_a_callback_may_end_it(root, tmp_path):
    class Ends(Callback):
        def on_log(self, line):
            raise StopTraining("enough")

    result = train_localiser(config_for(root, tmp_path / "run"), callbacks=[Ends()])
    assert result.stage == "rpn" and result.stopped_by is not None and "enough" in result.stopped_by
    assert not (tmp_path / "run/rcnn").exists()


def test_a_stage_that_is_out_of_patience_is_finished(root, tmp_path, monkeypatch):
    """The chain goes on with the next one, and so does a resumed one."""
    monkeypatch.setattr("detection.localisation.fit._measure", lambda *arguments: {"gt_class_error": 1.0})
    train = config_for(root, tmp_path).rpn_train.model_dump(mode="json") | {"steps": 9, "stop_patience": 1}
    config = config_for(root, tmp_path / "run", rpn_train=train)
    stopped = train_localiser(config, callbacks=[StopAt(2, 1)])
    assert (stopped.stage, stopped.steps) == ("rcnn", 1)
    assert load_checkpoint(config.output_dir / "rpn/last.pt")["training"]["progress"]["step"] == 2
    result = train_localiser(config, resume=True)
    assert len(result.rows) == 5 and result.stopped_by is None


def test_random_weights_are_advised_against(root, tmp_path):
    """Once, and not where a run goes on."""
    told: list[str] = []
    config = config_for(root, tmp_path / "run")
    train_localiser(config, tell=told.append, callbacks=[StopAt(1, 1)])
    assert sum("model.norm is frozen_bn and model.weights is null" in line for line in told) == 1
    told.clear()
    train_localiser(config, tell=told.append, callbacks=[StopAt(1, 2)], resume=True)
    assert not any("frozen_bn" in line for line in told)


def test_with_a_classifier_five_guesses_are_measured(root, tmp_path):
    """A classifier's weights are where both stages start from, and its classes are what is localised."""
    weights = write_classifier(tmp_path / "classifier.pt")
    told: list[str] = []
    config = config_for(root, tmp_path / "run", model={"backbone": "narrow", "weights": str(weights)})
    result = train_localiser(config, tell=told.append)
    # There are three classes, so that the true one is always among the five.
    assert all(row.classification_error == 0.0 for row in result.rows)
    for row in result.rows:
        assert row.localisation_error == pytest.approx(row.gt_class_error)
    assert sum("the backbone starts from the classifier" in line for line in told) == 2
    resumed = config.model_copy(update={"model": config.model.model_copy(update={"weights": None})})
    assert train_localiser(resumed, resume=True).rows == result.rows


def test_a_classifier_of_other_classes_only_starts_the_network(root, tmp_path):
    weights = write_classifier(tmp_path / "classifier.pt", ("a", "b"))
    told: list[str] = []
    config = config_for(root, tmp_path / "run", model={"backbone": "narrow", "weights": str(weights)})
    assert all(row.classification_error is None for row in train_localiser(config, tell=told.append).rows)
    assert any("does not classify these 3 classes" in line for line in told)
    named = config_for(root, tmp_path / "other", model={"backbone": "narrow"}, classifier={"weights": [str(weights)]})
    with pytest.raises(CheckpointError, match="classifies other classes than the data's 3"):
        train_localiser(named)
    assert not (tmp_path / "other").exists()


def test_another_chain_is_not_overwritten(chain, root, tmp_path):
    config, _, _ = chain
    with pytest.raises(TrainingError, match=r"rpn holds another run \(last\.pt\)"):
        train_localiser(config)
    (tmp_path / "proposals").mkdir()
    (tmp_path / "proposals/proposals.json").touch()
    with pytest.raises(TrainingError, match=r"holds another run \(proposals/proposals\.json\): resume it"):
        train_localiser(config_for(root, tmp_path))


def test_resuming_needs_a_run(root, tmp_path):
    with pytest.raises(TrainingError, match=r"nothing to resume: .*rpn/last\.pt does not exist"):
        train_localiser(config_for(root, tmp_path / "run"), resume=True)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"rpn": {"anchor_sizes": [20, 40], "anchor_ratios": [1.0]}},
            r"rpn\.anchor_sizes \(\[24\.0, 48\.0\] -> \[20\.0, 40\.0\]\)",
        ),
        ({"data": {"image_size": 96}}, r"data\.image_size \(64 -> 96\)"),
        ({"model": {"backbone": "narrow"}}, "model.backbone .* resume with the run's own"),
        ({"rpn_train": {"steps": 3}}, r"rpn_train\.steps \(2 -> 3\)"),
    ],
)
def test_an_rpn_that_has_made_proposals_stays_as_it_is(chain, root, section, message):
    """Also where its weights would load into the network of other settings."""
    config, _, _ = chain
    values = config.model_dump(mode="json")
    other = parse_config(LocConfig, values | {key: values[key] | changed for key, changed in section.items()}, "test")
    with pytest.raises(TrainingError, match=r"the settings differ from those of .*rpn/last\.pt: " + message):
        train_localiser(other, resume=True)


def test_other_settings_do_not_go_on(chain, root):
    config, _, _ = chain
    for section, message in (
        ({"rcnn": {"num_proposals": 3}}, r"holds proposals made with rcnn\.num_proposals 4, not 3"),
        ({"rcnn": {"num_proposals": 4, "padding": 3}}, r"rcnn\.padding \(0 -> 3\)"),
    ):
        with pytest.raises((TrainingError, ValueError), match=message):
            train_localiser(config_for(root, config.output_dir, **section), resume=True)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rcnn_train": {"validation_losses": 4}}, r"rcnn_train\.validation_losses is 4"),
        ({"data": {"augmentations": [{"Nonsense": {}}]}}, "Nonsense"),
        ({"model": {"backbone": "tiny", "weights": "nowhere.pt"}}, "cannot read checkpoint nowhere.pt"),
    ],
)
def test_mistakes_show_before_anything_is_written(root, tmp_path, section, message):
    with pytest.raises(ValueError, match=message):
        train_localiser(config_for(root, tmp_path / "run", **section))
    assert not (tmp_path / "run").exists()


def test_a_config_may_be_a_file(root, tmp_path):
    file = tmp_path / "loc.yaml"
    file.write_text(dump_config(config_for(root, tmp_path / "run", rcnn_train={"validation_losses": 2})))
    with pytest.raises(ConfigError, match=r"rcnn_train\.validation_losses is 2"):
        train_localiser(file)


def test_the_boxes_that_are_reached_without_looking(root):
    config = make_config(root)
    images = read_loc_images(config.data, config.data.train).subset([1, 0])
    # loc_kit's boxes of a 60 x 40 image: 21 x 26 in both, 23 x 27 in the first.
    assert mean_share(images).tolist() == pytest.approx([(26 + 27 + 26) / 3 / 40, (21 + 23 + 21) / 3 / 60])
    assert centre_boxes(images, mean_share(images) * 0 + 1).tolist() == [[0, 0, 60, 40]] * 2
    half = mean_share(images) * 0 + [0.5, 0.25]
    assert centre_boxes(images, half).tolist() == [[22.5, 10, 37.5, 30]] * 2


def test_a_table_that_cannot_be_read_is_measured_again(tmp_path, root):
    config = make_config(root)
    for text in ("{", "[]", "{}", '{"config": {}}', json.dumps({"config": config.model_dump(mode="json"), "rows": [{"x": 1}]})):
        (tmp_path / "results.json").write_text(text)
        assert read_rows(tmp_path / "results.json", config) is None
    assert read_rows(tmp_path / "none.json", config) is None
    assert LocRow("x", 0.5).paper == {}
