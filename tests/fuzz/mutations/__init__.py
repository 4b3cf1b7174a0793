"""The kinds of cases: each breaks one thing in a copy of the sandbox and names the commands that meet it."""

from __future__ import annotations

from tests.fuzz.mutations import boxes, checkpoints, commands, configs, exports, images
from tests.fuzz.mutations.case import Case, Mutation

__all__ = ["MUTATIONS", "Case", "Mutation"]

MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        *(configs.config_key, configs.config_override, configs.config_text, configs.classifier_config),
        configs.score_thresholds,
        *(
            boxes.voc_xml,
            boxes.voc_split,
            boxes.same_stem,
            boxes.voc_results,
            boxes.coco_field,
            boxes.coco_bytes,
            boxes.coco_lists,
            boxes.coco_results,
        ),
        exports.export,
        *(images.image_file, images.class_folders, images.demo_inputs),
        *(checkpoints.checkpoint_field, checkpoints.checkpoint_bytes),
        *(commands.command_line, commands.class_names, commands.metrics_log),
    )
}
