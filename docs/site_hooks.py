"""Hooks of the documentation site: the API reference, a page for each package, made of the docstrings as it is built."""

from __future__ import annotations

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Commands are for the shell: `resdet COMMAND --help` is their reference.
LEFT_OUT = "detection.cli"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the reference's pages at the end of the navigation."""
    if config.nav is not None:
        config.nav.append({"API": [{name: page_of(name)} for name in packages()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference's pages, which exist only in the site."""
    for name in packages():
        files.append(File.generated(config, page_of(name), content=api_page(name)))
    return files


def packages() -> list[str]:
    """The packages that have a page: "backbones", "backbones.weights", ..., "detection.weights"."""
    found = sorted(path.parent for top in ("backbones", "detection") for path in (ROOT / top).rglob("__init__.py"))
    names = [".".join(path.relative_to(ROOT).parts) for path in found]
    return [name for name in names if not name.startswith(LEFT_OUT)]


def page_of(package: str) -> str:
    """The page of a package, relative to docs/."""
    return f"api/{package}.md"


def api_page(package: str) -> str:
    """The page's Markdown: the package, then each of its modules."""
    folder = ROOT.joinpath(*package.split("."))
    modules = [f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    sections = [f"## {name}\n\n::: {name}\n    options: {{show_root_heading: false}}\n" for name in modules]
    return "\n".join([f"# {package}\n", f"{_docstring(folder / '__init__.py')}\n", *sections])


def _docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
