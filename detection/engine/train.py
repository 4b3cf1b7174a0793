"""A training run, of the classification and the detection stage: begun or resumed, trained, and what comes of it.

A model is an `nn.Module` whose forward(batch) returns scalar losses by name. Scalars whose names begin with "train_" are
only logged. A batch has `.to(device)`, `len()` and `.files`.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from detection.config import TrainConfig
from detection.config.yaml_text import dump_yaml
from detection.engine.advice import advise_layer_rates, advise_resumed, advise_schedule
from detection.engine.callbacks import Callback, CallbackList, RunEnd, RunInfo
from detection.engine.distributed import World, on_main
from detection.engine.events import TensorBoardLog
from detection.engine.folder import hold_folder
from detection.engine.group import process_group
from detection.engine.jsonl import JsonlLog
from detection.engine.log import RunLog
from detection.engine.loop import MakeBatches, run_steps
from detection.engine.optim import describe_schedule, scale_schedule
from detection.engine.precision import resolve_precision
from detection.engine.result import TrainResult
from detection.engine.run import TrainingRun, Validation, WarmUpIsOver, save_last
from detection.engine.signals import StopSignals
from detection.engine.state import BEST, LAST, read_last_checkpoint, require_no_other_run, restore
from detection.engine.writing import writing
from detection.files import METRICS_FILE, remove_leftovers, write_whole
from detection.weights.checkpoint import Checkpoint, CheckpointMetadata

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"


def train(
    model: nn.Module,
    make_batches: MakeBatches,
    config: TrainConfig,
    output_dir: Path,
    *,
    metadata: CheckpointMetadata,
    world: World | None = None,
    validation: Validation | None = None,
    warm_up_is_over: WarmUpIsOver | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a model and keep its checkpoints and log in `output_dir`.

    `config` is the nominal one; it is scaled to the total batch here. `metadata` is what each checkpoint says of the model.
    `world` is where it is trained, by default the processes of the environment, on a GPU if there is one.
    With `warm_up_is_over` the rate stays at `warmup_factor` of its value until that returns True for the line of a log
    interval. With `ema_decay` the averaged weights are evaluated and kept in best.pt, and are the model's at the end.
    `callbacks` are called on rank 0, after those that write the run's own log.

    The folder is held until the end (`detection.engine.folder`). SIGINT, SIGTERM and SIGHUP end the run after its current
    step, saved; so does a standard output whose reader has gone, as if by SIGPIPE, and a callback that asks for it.

    Raises TrainingError for a loss or weights that are not finite, an output folder that is in use, holds another run or is
    deleted meanwhile, a run that cannot be resumed, or another process that is lost; CheckpointError for a damaged or
    foreign last.pt; and what a callback raises.
    """
    world = world or World.from_environment()
    scaled = scale_schedule(config, world.size)
    with process_group(world, config), hold_folder(world, output_dir) as folder:
        checkpoint = on_main(world, lambda: _find_checkpoint(output_dir, metadata, scaled, world, resume))
        model.to(world.device)
        dtype = _autocast_type(scaled, world, checkpoint)
        with (
            StopSignals() as stop,
            RunLog(output_dir, enabled=world.is_main, on_closed_output=stop.note_closed_output) as log,
        ):
            _log_schedule(model, config, scaled, evaluated=validation is not None)
            own = (JsonlLog(output_dir, folder.require_intact), TensorBoardLog(output_dir), log)
            run = TrainingRun(
                model=model,
                config=scaled,
                world=world,
                folder=folder,
                metadata=metadata,
                validation=validation,
                log=log,
                callbacks=CallbackList((*own, *callbacks) if world.is_main else ()),
                stop=stop,
                dtype=dtype,
                warm_up_is_over=warm_up_is_over,
            )
            return _run(run, checkpoint, make_batches)


def _find_checkpoint(
    output_dir: Path, metadata: CheckpointMetadata, config: TrainConfig, world: World, resume: bool
) -> Checkpoint | None:
    """The checkpoint to go on from; None for a new run, whose folder must not hold another."""
    if resume:
        return read_last_checkpoint(output_dir, metadata, config, world)
    require_no_other_run(output_dir)
    return None


def _autocast_type(config: TrainConfig, world: World, checkpoint: Checkpoint | None) -> torch.dtype | None:
    """The run's precision. What `auto` began in fp32, as earlier versions did on older GPUs, does not go on in fp16."""
    dtype = resolve_precision(config.precision, world.device)
    began_in_fp16 = checkpoint is None or checkpoint.training.get("scaler") is not None
    return None if dtype is torch.float16 and config.precision == "auto" and not began_in_fp16 else dtype


def _log_schedule(model: nn.Module, nominal: TrainConfig, scaled: TrainConfig, *, evaluated: bool) -> None:
    """What the schedule is for this number of processes, and what of it is seldom meant."""
    logger.info("%s", describe_schedule(nominal, scaled))
    for sentence in advise_schedule(scaled, evaluated=evaluated) + advise_layer_rates(model, scaled):
        logger.warning("%s", sentence)


def _run(run: TrainingRun, checkpoint: Checkpoint | None, make_batches: MakeBatches) -> TrainResult:
    """The run from its beginning to its end, of which the callbacks hear in any case."""
    try:
        _begin(run, checkpoint)
        run_steps(run, make_batches)
        result = _result(run)
    except BaseException as error:
        run.callbacks.end(RunEnd(error=error))
        raise
    run.tell(lambda callbacks: callbacks.end(RunEnd(result)))
    return replace(result, asked_to_stop=run.asked_to_stop)


def _begin(run: TrainingRun, checkpoint: Checkpoint | None) -> None:
    """Restore or start the run, and open its files."""
    if checkpoint is not None:
        path = run.output_dir / LAST
        run.state, run.window = restore(checkpoint, path, run.model, run.ema, run.optimizer, run.scaler, run.world)
        run.metadata = replace(run.metadata, preprocessing=checkpoint.metadata.preprocessing)
        logger.info("%s", _describe_restored(run))
        for sentence in advise_resumed(checkpoint.training["scheduler"]["config"], run.config):
            logger.warning("%s", sentence)
    if run.world.is_main:
        for name in (LAST, BEST, METRICS_FILE, CONFIG_FILE):
            remove_leftovers(run.output_dir / name)
        with writing(run.output_dir / CONFIG_FILE):
            write_whole(run.output_dir / CONFIG_FILE, dump_yaml(run.metadata.config))
    if checkpoint is None:
        save_last(run)  # from now on there is something to resume, whenever the run is killed
    state = run.state
    info = RunInfo(
        run.output_dir, run.metadata.config, run.config.steps, state.step, state.evaluated, resumed=checkpoint is not None
    )
    run.tell(lambda callbacks: callbacks.start(info))


def _describe_restored(run: TrainingRun) -> str:
    state = run.state
    best = f"best {state.best.metric} {state.best.value:.4f} of step {state.best.step}" if state.best else "no best yet"
    return (
        f"resuming {run.output_dir / LAST} at step {state.step} of {run.config.steps}: restored weights, optimizer, "
        f"schedule, random numbers, the place in the data (batch {state.step * run.config.accumulate}) and {best}"
    )


def _result(run: TrainingRun) -> TrainResult:
    state, number = run.state, run.stop.agreed
    stopped_by = run.stopped_by if state.step < run.config.steps else None
    if number is not None or stopped_by is not None:
        what = stopped_by if number is None else signal.Signals(number).name
        logger.info("%s at step %d of %d; saved %s", what, state.step, run.config.steps, run.output_dir / LAST)
    if number is None and run.ema is not None:
        run.model.load_state_dict(run.ema.module.state_dict())
    best = None if state.best is None else state.best.value
    return TrainResult(state.step, state.metrics, best, state.seconds, run.output_dir, number, stopped_by)
