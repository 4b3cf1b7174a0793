"""`train.images_per_device: auto`: how many images fit into a forward and backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from detection.config import Config
from detection.data.catalog import Dataset
from detection.data.tiles import tile_dataset
from detection.data.transforms import make_target
from detection.engine.distributed import World, on_main, reduce_max
from detection.engine.loop import total_loss
from detection.engine.optim import build_optimizer
from detection.engine.precision import autocast, build_scaler, resolve_precision
from detection.engine.state import LAST
from detection.inference.detector import Detector, build_detector
from detection.out_of_memory import is_out_of_memory
from detection.resize import resized_size
from detection.structures import Batch, Target
from detection.weights.checkpoint import checkpoint_config, read_checkpoint

HEADROOM = 0.9
"""Share of a GPU's memory that a step may take: the allocator's fragments and the processes' exchange take some of it, too."""


def settle_images_per_device(
    config: Config, dataset: Dataset, world: World, tell: Callable[[str], object], *, resumed: Sequence[Path] = ()
) -> Config:
    """The config with a number in place of `auto`, which `tell` gets with the reason.

    A run in one of the folders `resumed` goes on with the number that its checkpoint records. Raises CheckpointError.
    """
    if config.train.images_per_device != "auto":
        return config
    recorded = on_main(world, lambda: _recorded_number(resumed))
    number, reason = find_number(config, dataset, world) if recorded is None else (recorded, "as the run began")
    tell(f"train.images_per_device is {number}: {reason}")
    return config.model_copy(update={"train": config.train.model_copy(update={"images_per_device": number})})


def _recorded_number(folders: Sequence[Path]) -> int | None:
    last = next((folder / LAST for folder in folders if (folder / LAST).exists()), None)
    return None if last is None else checkpoint_config(read_checkpoint(last, "detector"), last).train.micro_batch


def find_number(config: Config, dataset: Dataset, world: World) -> tuple[int, str]:
    """The number, the same in all processes, and why it is that."""
    bound = max(1, config.train.batch_size // (world.size * config.train.accumulate))
    if world.device.type == "cpu":
        return 1, "on a CPU a step takes as long as its images together, and more of them only more memory"
    if world.device.type != "cuda":
        return 1, f"how much memory a step may take is not known of {world.device}"
    own = largest_power(bound, lambda number: fits(number, config, dataset, world.device))
    number = -reduce_max(world, [-own])[0]
    reached = "train.batch_size asks for no more" if 2 * number > bound else "twice as many do not fit into the GPU's memory"
    return number, f"with the largest images of the data, {reached}"


def largest_power(bound: int, fits: Callable[[int], bool]) -> int:
    """The greatest power of two up to `bound` that fits, and so does each before it; 1 where none does."""
    number = 1
    while 2 * number <= bound and fits(2 * number):
        number *= 2
    return number


def fits(number: int, config: Config, dataset: Dataset, device: torch.device) -> bool:
    """Whether two training steps on that many of the largest images leave some of the GPU's memory, with fresh weights."""
    on_gpu = device.type == "cuda"
    try:
        _try_steps(build_detector(config).to(device), largest_batch(number, config, dataset).to(device), config, device)
        return not on_gpu or torch.cuda.max_memory_allocated(device) <= HEADROOM * torch.cuda.mem_get_info(device)[1]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        if on_gpu:  # the run's own log begins at none
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)


def _try_steps(model: Detector, batch: Batch, config: Config, device: torch.device) -> None:
    dtype = resolve_precision(config.train.precision, device)
    optimizer, scaler = build_optimizer(model.train(), config.train, dtype), build_scaler(device, dtype)
    for _ in range(2):  # the first one makes the optimizer's state
        with autocast(device, dtype):
            losses = model(batch)
        scaler.scale(total_loss(losses)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def largest_batch(number: int, config: Config, dataset: Dataset) -> Batch:
    """Grey images of the greatest size that training pads to, each with as many objects as any image has."""
    data = config.data
    records = tile_dataset(dataset, data).records
    sides = max(data.shorter_sides), data.longer_side
    sizes = [resized_size(record.size_hw, *sides, data.resizing) for record in records]
    # Of landscapes and portraits apart, as they are batched, or else of all together.
    groups = [[hw for hw in sizes if (hw[1] >= hw[0]) is wide] for wide in (True, False)] if data.aspect_grouping else [sizes]
    padded = [(max(h for h, _ in group), max(w for _, w in group)) for group in groups if group]
    height, width = max(padded, key=lambda size: size[0] * size[1])
    objects = max(len(record.labels) for record in records)
    box = torch.tensor([[0.0, 0.0, width / 2, height / 2]])
    partial = next((record for record in records if record.known is not None), records[0])
    known = make_target(partial, data.partial_labels).known
    masks = torch.ones((objects, height, width), dtype=torch.bool) if config.model.mask else None
    target = Target(box.repeat(objects, 1), torch.zeros(objects, dtype=torch.long), torch.zeros(0, 4), known, masks)
    dtype = torch.float32 if data.resizing == "torchvision" else torch.uint8
    images = torch.full((number, 3, height, width), 128, dtype=dtype)
    return Batch(images, [(height, width)] * number, [target] * number, ["a trial"] * number)
