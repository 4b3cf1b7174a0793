"""`images_per_device: auto`: what fits is found out, said, and kept when the run is resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detection import Config, load_detector, train_detector
from detection.config import load_config, parse_config
from detection.data import load_split
from detection.data.catalog import Dataset
from detection.data.records import AnnotatedObject, make_record
from detection.engine.distributed import World
from detection.errors import ConfigError
from detection.training import device_batch
from detection.training.device_batch import find_number, fits, largest_batch, largest_power
from tests.shapes import write_config

CPU = torch.device("cpu")


def test_powers_of_two_up_to_what_fits() -> None:
    tried: list[int] = []

    def up_to(most: int) -> Callable[[int], bool]:
        def fits(number: int) -> bool:
            tried.append(number)
            return number <= most

        return fits

    assert [largest_power(8, up_to(most)) for most in (0, 1, 2, 5, 100)] == [1, 1, 2, 4, 8]
    assert largest_power(7, up_to(100)) == 4 and largest_power(1, up_to(100)) == 1
    assert max(tried) == 8, "no more is tried than the batch has"


def test_the_gpu_decides_and_the_batch_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(Config, {"train": {"batch_size": 16, "accumulate": 2, "images_per_device": "auto"}}, "the test")
    gpu, dataset = World(0, 1, torch.device("cuda", 0)), Dataset(("a",), [])
    for most, expected, reason in ((3, 2, "twice as many do not fit"), (100, 8, "train.batch_size asks for no more")):
        monkeypatch.setattr(device_batch, "fits", lambda number, *rest, most=most: number <= most)
        number, why = find_number(config, dataset, gpu)
        assert number == expected and reason in why
    assert find_number(config, dataset, World(0, 1, CPU))[0] == 1
    assert find_number(config, dataset, World(0, 1, torch.device("mps"))) == (
        1,
        "how much memory a step may take is not known of mps",
    )


def test_the_largest_batch_is_as_large_as_training_pads_to() -> None:
    objects = [AnnotatedObject((0, 0, 5, 5), 0)] * 3
    sizes = [(100, 200), (150, 150), (300, 100)]
    records = [make_record(n, Path(f"{n}.jpg"), size, objects[:n]) for n, size in enumerate(sizes)]
    config = parse_config(Config, {"data": {"shorter_sides": [50, 100], "longer_side": 250}}, "the test")
    batch = largest_batch(4, config, Dataset(("a",), records))
    # Landscapes become 100x200 and 100x100 (HxW), the portrait 250x83.
    assert batch.images.shape == (4, 3, 250, 83) and len(batch.targets[0].boxes) == 2
    mixed = config.model_copy(update={"data": config.data.model_copy(update={"aspect_grouping": False})})
    assert largest_batch(1, mixed, Dataset(("a",), records)).images.shape == (1, 3, 250, 200)
    assert batch.targets[0].known is None
    partial = Dataset(("a",), [*records[:2], replace(records[2], known=torch.tensor([False]))])
    assert largest_batch(1, config, partial).targets[0].known is partial.records[2].known
    literal = config.model_copy(update={"data": config.data.model_copy(update={"partial_labels": False})})
    assert largest_batch(1, literal, partial).targets[0].known is None


@pytest.fixture
def config(tmp_path: Path, devkit: Path) -> Config:
    return load_config(write_config(tmp_path, devkit), ["train.steps=2", "train.images_per_device=auto"])


def test_a_trial_is_two_real_steps_and_memory_that_runs_out_is_no_error(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_split(config.data, "train")
    assert fits(1, config, dataset, CPU)

    def hungry(*args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(device_batch, "total_loss", hungry)
    assert not fits(1, config, dataset, CPU)


def test_the_number_is_said_and_kept(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    train_detector(config, tell=said.append)
    assert any(line.startswith("train.images_per_device is 1: on a CPU") for line in said)
    assert load_detector(config.output_dir / "last.pt").config.train.images_per_device == 1
    monkeypatch.setattr(device_batch, "find_number", lambda *args: pytest.fail("a resumed run looked again"))
    longer = config.model_copy(update={"train": config.train.model_copy(update={"steps": 3})})
    assert train_detector(longer, resume=True, tell=said.append).steps > 2
    assert "train.images_per_device is 1: as the run began" in said


def test_what_is_not_settled_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="train.images_per_device is 'auto'.*give a number"):
        _ = config.train.micro_batch
