"""What a conversion made of another project's file: a few lines for people, and an account of every tensor as plain data."""

from __future__ import annotations

from typing import Any

from detection.weights.conversion import Conversion


def describe_conversion(conversion: Conversion) -> list[str]:
    """What the file is, what its weights expect, and what became of its tensors, in a few lines."""
    metadata = conversion.checkpoint.metadata
    model, preprocessing = metadata.config["model"], metadata.preprocessing.to_dict()
    classes = f", {len(metadata.class_names)} classes" if metadata.class_names else ""
    counts = ", ".join(f"{count} {kind}" for kind, count in conversion.counts.items())
    return [
        f"{metadata.kind}, {model['backbone']}{classes} (format {conversion.format})",
        f"  stride_in_1x1: {str(model['stride_in_1x1']).lower()}, stem_pool: {model['stem_pool']}",
        f"  {preprocessing['channel_order']}, mean {preprocessing['mean']}, std {preprocessing['std']}",
        f"  tensors: {counts}",
        *_reasons(conversion),
    ]


def _reasons(conversion: Conversion) -> list[str]:
    """A line for each reason why tensors were dropped, added or changed: the first one's name, and how many more."""
    names_by_reason: dict[tuple[str, str], list[str]] = {}
    for entry in conversion.entries:
        if entry.note:
            names_by_reason.setdefault((entry.kind, entry.note), []).append(entry.source or entry.target or "")
    lines = []
    for (kind, note), names in names_by_reason.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"    {kind} {names[0]}{more}: {note}")
    return lines


def conversion_report(conversion: Conversion) -> dict[str, Any]:
    """The format, the checkpoint's metadata, and what became of each tensor, as plain data for JSON."""
    return {
        "format": conversion.format,
        **conversion.checkpoint.metadata.to_dict(),
        "counts": conversion.counts,
        "tensors": [
            {"kind": entry.kind, "source": entry.source, "target": entry.target, "note": entry.note}
            for entry in conversion.entries
        ],
    }
