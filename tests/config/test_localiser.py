import pytest

from detection.config import LocConfig, parse_config
from detection.errors import ConfigError


def test_the_padding_leaves_something_of_the_warped_image():
    for padding in (0, 16, 111):
        assert parse_config(LocConfig, {"rcnn": {"padding": padding}}, "test").rcnn.padding == padding
    with pytest.raises(ConfigError, match="rcnn.padding is 112, which at both sides leaves nothing of data.image_size, 224"):
        parse_config(LocConfig, {"rcnn": {"padding": 112}}, "test")
