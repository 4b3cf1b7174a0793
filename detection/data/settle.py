"""What a config leaves to the data, looked up in them: its classes, the formats of its folders, the images held out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from backbones.errors import printable, shorten
from detection.config import Config, DataConfig, FolderSource, HeldOut, Source, SplitName, VocSource
from detection.config.class_lists import MAX_CLASSES, check_class_names, list_names
from detection.config.data_section import SourceSection, check_names_in_data
from detection.config.thresholds import check_threshold_names
from detection.data.catalog import resolve_file, resolve_root
from detection.data.faults import Faults
from detection.data.formats.recognise import Recognised, recognise
from detection.data.names import names_in, read_names
from detection.data.split import SPLIT_FILE, read_split, settings_of
from detection.errors import ConfigError, DatasetError, did_you_mean
from detection.files import is_file, read_text

logger = logging.getLogger(__name__)

_MAX_CLASSES_BYTES = 1000 * MAX_CLASSES

Tell = Callable[[str], object]
"""Is called with sentences for people, such as what was found out about the data, or the number of images."""


def settle_config(config: Config, tell: Tell = logger.info) -> Config:
    """The same experiment without `auto`: sources by their formats, classes by their names. A settled config stays.

    `tell` gets a sentence for each thing that was found out. Raises ConfigError or DatasetError.
    """
    return settle_held_out(settle_classes(settle_sources(config, tell), tell))


def settle_sources(config: Config, tell: Tell = logger.info) -> Config:
    """The same experiment with the formats of its folders in place of `auto`; each folder is told once."""
    data, known = config.data, dict[tuple[Path, Path | None], Recognised]()

    def settled(sources: Sequence[Source], purpose: SplitName) -> tuple[Source, ...]:
        return tuple(each for source in sources for each in _concrete(source, purpose, known, tell))

    train = settled(data.train, "train")
    val = data.val if isinstance(data.val, HeldOut) else settled(data.val, "val")
    changed = {"train": train, "val": val, "test": settled(data.test, "test")}
    return config.model_copy(update={"data": data.model_copy(update=changed)}) if known else config


def _concrete(
    source: Source, purpose: SplitName, known: dict[tuple[Path, Path | None], Recognised], tell: Tell
) -> Sequence[Source]:
    """The sources that an `auto` source stands for; any other as it is."""
    if not isinstance(source, FolderSource) or source.format != "auto":
        return [source]
    root = resolve_root(source.root)
    key = root, source.annotations
    if key not in known:
        known[key] = recognise(root, source.annotations)
        tell(known[key].sentence)
    return [each.model_copy(update=_own_keys(source, root, each)) for each in known[key].sources(source.split, purpose)]


def _own_keys(source: FolderSource, root: Path, found: Source) -> dict[str, object]:
    """What else an `auto` source says, for what it stands for."""
    keys: dict[str, object] = {name: getattr(source, name) for name in SourceSection.model_fields}
    if source.images is not None and not isinstance(found, VocSource):
        keys["images"] = (root / source.images).absolute()  # what was found may have its root deeper
    return keys | ({"label_key": source.label_key} if isinstance(found, FolderSource) else {})


def settle_held_out(config: Config) -> Config:
    """The same experiment with the images held out that its run in `output_dir` held out, if there is one."""
    held_out, file = config.data.held_out, config.output_dir / SPLIT_FILE
    if held_out is None or held_out.file is not None or not is_file(file):
        return config
    asked = read_split(file).asked
    if asked != settings_of(held_out):
        # More than a sentence that may be told: images that the run was trained on would be evaluated.
        logger.warning("data.val asks for another split than %s, with which the run there was trained", printable(str(file)))
        return config
    return with_split_file(config, held_out)


def with_split_file(config: Config, held_out: HeldOut) -> Config:
    """The config whose `data.val` names the split in its output folder."""
    kept = held_out.model_copy(update={"file": config.output_dir / SPLIT_FILE})
    return config.model_copy(update={"data": config.data.model_copy(update={"val": kept})})


def settle_classes(config: Config, tell: Tell = logger.info) -> Config:
    """The same experiment with the names of its classes in `data.classes`, from `data.classes_file` or from the data."""
    data = config.data
    if data.classes_file is not None:
        names = read_class_names(data.classes_file)
        tell(f"{len(names)} classes in {printable(str(data.classes_file))}: {list_names(names)}")
    elif data.classes == "auto":
        names = _names_of_data(data, tell)
        data = _without_idle_renames(data, names, tell)
    else:
        return config
    check_names_in_data(data, names)
    check_threshold_names(config.test.score_threshold, names)
    return config.model_copy(update={"data": data.model_copy(update={"classes": names, "classes_file": None})})


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a text file, one a line, in its order; empty lines and those that begin with "# " are passed over.

    UTF-8, or what a byte-order mark declares. Looked for from here, then where data sets are. Raises DatasetError, ConfigError.
    """
    file = resolve_file(path)
    lines = (line.strip() for line in read_text(file, _MAX_CLASSES_BYTES).split("\n"))
    names = check_class_names((line for line in lines if line and line != "#" and not line.startswith("# ")), str(file))
    if not names:
        raise DatasetError(f"{file} names no class: write a name on each line")
    return names


def _names_of_data(data: DataConfig, tell: Tell) -> tuple[str, ...]:
    """The names that objects of the data have after `rename` and `drop`, sorted: those of all splits."""
    sources = data.train or data.all_sources
    if not sources:
        raise ConfigError("data.classes is auto, but no data are named to take them from: set data.train")
    found = read_names(sources)
    # The same file may hold several splits: it is read again, but seldom.
    others = names_in([source for source in data.all_sources if source not in sources], Faults(collect=True))
    trained, evaluated = (_renamed(each.used, data) for each in (found, others))
    if not trained:
        raise ConfigError(f"data.drop leaves no class of the data: they have {list_names(found.used)}")
    names = _checked(sorted({*trained, *evaluated}))
    tell(f"{len(names)} classes in the data: {_listed(names)}")
    if untrained := sorted(set(evaluated) - set(trained)):
        tell(f"{len(untrained)} of them have objects to evaluate with, but none to learn from: {_listed(untrained)}")
    if unused := [name for name in _renamed(found.unused, data) if name not in names]:
        tell(f"{len(unused)} declared classes have no object and are left out: {_listed(unused)}")
    return names


def _renamed(names: Sequence[str], data: DataConfig) -> list[str]:
    return [data.rename.get(name, name) for name in names if name not in data.drop]


def _listed(names: Sequence[str]) -> str:
    return list_names(list(map(printable, names)))


def _without_idle_renames(data: DataConfig, names: Sequence[str], tell: Tell) -> DataConfig:
    """A name that no object has may not be renamed to what is no class: a config that names its classes would be refused."""
    idle = {old: new for old, new in data.rename.items() if new not in set(names)}
    for old, new in idle.items():
        tell(f"data.rename makes {shorten(new)} of {shorten(old)}, which no object has{did_you_mean(old, names)}")
    return data.model_copy(update={"rename": {old: new for old, new in data.rename.items() if old not in idle}})


def _checked(names: Sequence[str]) -> tuple[str, ...]:
    try:
        return check_class_names(names, "the classes of the data")
    except ConfigError as error:
        raise ConfigError(f"data.classes is auto, but {error}; data.rename makes two names one") from None
