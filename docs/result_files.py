"""The schema of the files in docs/results: one measurement each, read into frozen values, with unknown keys refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Figure = float | int | str
# A note is a short paragraph: what needs more has a table.
Note = Annotated[str, Field(min_length=1, max_length=700)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExtraTable(_Frozen):
    """A table of figures below the notes."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Figure, ...], ...]


class ResultFile(_Frozen):
    """What every file says: what was measured, where, when, of which commit and by which commands."""

    heading: str | None = Field(None, description="of the section; the file's name where it is left out")
    title: str
    hardware: str
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    commit: str
    commands: tuple[str, ...] = Field(min_length=1)
    notes: tuple[Note, ...] = ()
    tables: tuple[ExtraTable, ...] = ()


class MeasuresResult(ResultFile):
    """Single figures by name."""

    kind: Literal["measures"]
    measures: dict[str, Figure]


class ComparisonResult(ResultFile):
    """One row for each thing compared, its figures by the columns' names."""

    kind: Literal["comparison"]
    columns: tuple[str, ...]
    rows: dict[str, dict[str, Figure]]
    pictures: dict[str, str] = Field({}, description="title -> file, relative to docs/")


class MetricsRow(_Frozen):
    """The metrics of one evaluation, 0 to 1; -1 where there was nothing to measure."""

    AP: float
    AP50: float
    AP75: float
    voc_area: float


class EnsembleMember(MetricsRow):
    """One network of an ensemble by itself."""

    weights: str


class AblationFileRow(MetricsRow):
    """A row of the ablation's table."""

    name: str
    weights: tuple[str, ...]
    settings: dict[str, Any]
    seconds_per_image: float
    relative_cost: float
    members: tuple[EnsembleMember, ...] = ()
    members_mean: MetricsRow | None = None


class AblationResult(ResultFile):
    """What `tools/ablation.py --json` wrote."""

    kind: Literal["ablation"]
    checkpoints: tuple[str, ...]
    scales: tuple[int, ...]
    left_out: tuple[str, ...]
    images: int
    timed_images: int
    rows: tuple[AblationFileRow, ...]


class BenchmarkResult(ResultFile):
    """What `tools/benchmark.py --json` wrote; docs/benchmark_page.py knows what is in the benchmarks."""

    kind: Literal["benchmark"]
    versions: str
    benchmarks: tuple[dict[str, Any], ...]


AnyResult = MeasuresResult | ComparisonResult | AblationResult | BenchmarkResult
_SCHEMA: TypeAdapter[AnyResult] = TypeAdapter(Annotated[AnyResult, Field(discriminator="kind")])


def read_result(path: Path) -> AnyResult:
    """The measurement in a file. Raises ValueError that names the file and every wrong key."""
    try:
        return _SCHEMA.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
        raise ValueError(f"{path}: {'; '.join(faults)}") from None


def read_results(folder: Path) -> dict[str, AnyResult]:
    """All measurements of a folder by the names of their files, in alphabetical order."""
    return {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}
