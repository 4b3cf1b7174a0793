"""Search for the settings that train best, and break off trials that fall behind. Needs `pip install optuna`.

python docs/examples/optuna_search.py --config mine.yaml --trials 20

Each trial is a run in OUTPUT/trial_N. What is measured is the AP of `data.val`; the config needs `train.eval_every`, as a trial
is compared with the others at its evaluations.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import optuna

from detection import Callback, Config, StopTraining, load_config, train_detector
from detection.config import override_config
from detection.engine.callbacks import Evaluation


class Pruning(Callback):
    """Tells Optuna the AP of each evaluation, and ends the run where it says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """The trial is behind the others, or not."""
        self.trial.report(evaluation.metrics["AP"], evaluation.step)
        if self.trial.should_prune():
            raise StopTraining("the trial is behind the others")


def main(argv: Sequence[str] | None = None) -> optuna.Study:
    """Search, and print the best settings."""
    options = build_parser().parse_args(argv)
    config = load_config(options.config)
    # Trials are compared at equal steps, from the third evaluation on where there are two others to compare with.
    pruner = optuna.pruners.MedianPruner(n_startup_trials=options.startup, n_warmup_steps=2 * config.train.eval_every)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=pruner)
    study.optimize(lambda trial: run_trial(trial, config, options.output), n_trials=options.trials)
    print(f"AP {study.best_value:.3f} with {study.best_params}, in {options.output}/trial_{study.best_trial.number}")
    return study


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the experiment")
    parser.add_argument("--trials", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--startup", type=int, default=2, help="trials that are not broken off; default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("runs/search"), metavar="DIR", help="default: %(default)s")
    return parser


def run_trial(trial: optuna.Trial, config: Config, output: Path) -> float:
    """Train with the trial's settings; its best AP."""
    rate = trial.suggest_float("learning_rate", 1e-4, 3e-2, log=True)
    decay = trial.suggest_float("weight_decay", 1e-5, 1e-3, log=True)
    config = override_config(config, [f"train.learning_rate={rate}", f"train.weight_decay={decay}"])
    config = config.model_copy(update={"output_dir": output / f"trial_{trial.number}"})
    result = train_detector(config, callbacks=[Pruning(trial)])
    if result.interrupted:
        trial.study.stop()
    if result.stopped_by or result.best is None:
        raise optuna.TrialPruned(result.stopped_by)
    return result.best


if __name__ == "__main__":
    main()
