"""The body of results.md: a section for each file of docs/results but the benchmarks, which have a page of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from detection.evaluation.metrics import METRICS
from docs.result_files import (
    AblationFileRow,
    AblationResult,
    AnyResult,
    BenchmarkResult,
    ComparisonResult,
    ExtraTable,
    MeasuresResult,
    MetricsRow,
    read_results,
)

INTRODUCTION = """\
Everything here was measured with this code, by the commands and on the machine named. Figures of the paper
stand in the headers of `configs/*.yaml` and are labelled as the paper's.
"""
ROW_METRICS = ("AP", "AP50", "AP75", "voc_area")


def results_body(folder: Path) -> str:
    """Everything below the page's title. Raises ValueError where a file breaks the schema."""
    results = {name: result for name, result in read_results(folder).items() if not isinstance(result, BenchmarkResult)}
    contents = "\n".join(f"- [{_heading(name, result)}](#{anchor(_heading(name, result))})" for name, result in results.items())
    return "\n".join([INTRODUCTION, f"{contents}\n", *("\n".join(_section(name, result)) for name, result in results.items())])


def anchor(heading: str) -> str:
    """The fragment of a heading, as forges and MkDocs make it: "One hour, again" -> "one-hour-again"."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def markdown_table(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table; the first column is to the left, the others are figures."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def _heading(name: str, result: AnyResult) -> str:
    return result.heading or name


def _section(name: str, result: AnyResult) -> Iterator[str]:
    yield f"## {_heading(name, result)}\n"
    yield f"{result.title}\n"
    yield from _main_table(result)
    yield ""
    if isinstance(result, ComparisonResult):
        yield from (f"![{title}]({picture})\n" for title, picture in result.pictures.items())
    if isinstance(result, AblationResult):
        yield from _ablation_notes(result)
    yield from (f"- {key}: {value}" for key, value in _provenance(result))
    yield from (f"- command: `{command}`" for command in result.commands)
    yield from (f"- {note}" for note in result.notes)
    yield ""
    for table in result.tables:
        yield from _extra_table(table)


def _provenance(result: AnyResult) -> tuple[tuple[str, str], ...]:
    return (("hardware", result.hardware), ("date", result.date), ("commit", result.commit))


def _main_table(result: AnyResult) -> list[str]:
    if isinstance(result, AblationResult):
        return _ablation_table(result)
    if isinstance(result, ComparisonResult):
        rows = [[name, *(row[column] for column in result.columns)] for name, row in result.rows.items()]
        return markdown_table(["", *result.columns], rows)
    assert isinstance(result, MeasuresResult)
    return markdown_table(["measure", "value"], list(result.measures.items()))


def _extra_table(table: ExtraTable) -> Iterator[str]:
    yield f"{table.title}\n"
    yield from markdown_table(table.columns, table.rows)
    yield ""


def _ablation_table(result: AblationResult) -> list[str]:
    """A line for each row; below an ensemble its members."""
    lines: list[list[str]] = []
    for row in result.rows:
        lines.append([row.name, *_metrics(row), f"{row.seconds_per_image:.3g}", f"{row.relative_cost:.2f}"])
        lines += _member_lines(row)
    return markdown_table(["", *(METRICS[key].title for key in ROW_METRICS), "seconds per image", "cost"], lines)


def _member_lines(row: AblationFileRow) -> list[list[str]]:
    lines = [[f"*`{member.weights}` alone*", *_metrics(member), "", ""] for member in row.members]
    mean = [] if row.members_mean is None else [["*mean of the members*", *_metrics(row.members_mean), "", ""]]
    return lines + mean


def _metrics(row: MetricsRow) -> list[str]:
    values = [getattr(row, key) for key in ROW_METRICS]
    return [f"{value:.3f}" if value >= 0 else "-" for value in values]


def _ablation_notes(result: AblationResult) -> Iterator[str]:
    rows_of: dict[str, list[str]] = {}
    for row in result.rows:
        rows_of.setdefault(", ".join(f"`{file}`" for file in row.weights), []).append(row.name)
    yield f"- {result.images} images; seconds: median of {result.timed_images}; cost: relative to the baseline"
    yield f"- scales of multi-scale testing: {', '.join(map(str, result.scales))}"
    yield from (f"- {'; '.join(names)}: {files}" for files, names in rows_of.items())
    yield from (f"- left out: {sentence}" for sentence in result.left_out)
