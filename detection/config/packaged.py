"""The configs that come with the package, by name: `resdet:voc_r50` is configs/voc_r50.yaml, wherever that was installed."""

from __future__ import annotations

from pathlib import Path

from backbones.errors import MAX_NAME_LENGTH, shorten
from backbones.files import expand_home
from detection.errors import ConfigError, did_you_mean

PREFIX = "resdet:"


def list_configs() -> list[str]:
    """Every name that `load_config` takes for a packaged config: "resdet:modern/voc_r50", ..."""
    folder = _folder()
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]
    return [PREFIX + name for name in sorted(names)]


def config_file(name: str | Path) -> Path:
    """The file of a config: of a packaged one `resdet:NAME`, with or without .yaml; any other name is a path already.

    Raises ConfigError for an unknown name.
    """
    text = str(name)
    if not text.startswith(PREFIX):
        return expand_home(name)
    known = list_configs()
    wanted = text.removesuffix(".yaml")
    if wanted not in known:
        others = did_you_mean(wanted[:MAX_NAME_LENGTH], known, f"one of {', '.join(known)}")
        raise ConfigError(f"there is no packaged config {shorten(text)}{others}")
    return _folder() / f"{wanted.removeprefix(PREFIX)}.yaml"


def _folder() -> Path:
    """detection/configs in an installation, the top-level configs/ in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
