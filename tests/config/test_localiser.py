import pytest

from detection.config import LocConfig, parse_config
from detection.errors import ConfigError


def test_the_padding_leaves_something_of_the_warped_image():
    for padding in (0, 16, 111):
        assert parse_config(LocConfig, {"rcnn": {"padding": padding}}, "test").rcnn.padding == padding
    with pytest.raises(ConfigError, match="rcnn.padding is 112, which at both sides leaves nothing of data.image_size, 224"):
        parse_config(LocConfig, {"rcnn": {"padding": 112}}, "test")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"rpn": {"negative_iou": 0.8}},
            "rpn.negative_iou is 0.8, above rpn.positive_iou, which is 0.6: an anchor between them would be both; lower it",
        ),
        (
            {"rcnn": {"negative_iou": 0.8}},
            "rcnn.negative_iou is 0.8, above rcnn.positive_iou, which is 0.5: a proposal between them would be both; lower it",
        ),
        ({"rpn": {"anchor_sizes": [8, 8]}}, "rpn.anchor_sizes lists a value twice, [8.0, 8.0]: leave one out"),
        ({"rpn": {"anchor_ratios": [2, 1, 2]}}, "rpn.anchor_ratios lists a value twice, [2.0, 1.0, 2.0]: leave one out"),
        (
            {"rpn": {"anchor_sizes": [*range(1, 101)], "anchor_ratios": [number / 10 for number in range(1, 12)]}},
            "rpn.anchor_sizes and rpn.anchor_ratios make 1100 anchors per cell, more than 1000: list fewer",
        ),
        ({"test": {"scales": [224, 224]}}, "test.scales lists a value twice, [224, 224]: leave one out"),
    ],
)
def test_values_that_do_not_fit_together(values, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(LocConfig, values, "x.yaml")
    assert str(caught.value) == f"x.yaml: {message}"


@pytest.mark.parametrize("section", ["rpn_train", "rcnn_train"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr_drops": [5, 3]}, "{}.lr_drops must ascend, got [5, 3]: write [3, 5]"),
        ({"schedule": "plateau"}, "{0}.schedule 'plateau' follows the evaluations: set {0}.eval_every"),
        ({"stop_patience": 2}, "{0}.stop_patience 2 counts evaluations: set {0}.eval_every"),
    ],
)
def test_a_fault_of_a_solver_names_the_stage_that_it_is_of(section, values, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(LocConfig, {section: values}, "x.yaml")
    assert str(caught.value) == f"x.yaml: {message.format(section)}"
