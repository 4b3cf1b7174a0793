"""The file that is submitted tells images by their place."""

import logging

import pytest
import torch

from detection.localisation.evaluate import guesses_of, true_classes
from detection.localisation.images import read_loc_images
from detection.localisation.submission import write_submission
from tests.localisation.loc_kit import make_config, write_loc


@pytest.mark.parametrize(("order", "words"), [([0, 1, 2], None), ([0, 2], "line 2 of"), ([1, 0, 2], "line 1 of")])
def test_a_split_that_is_not_val_from_its_first_image_on_is_warned_of(tmp_path, caplog, order, words):
    config = make_config(write_loc(tmp_path))
    images = read_loc_images(config.data, config.data.val).subset(order)
    caplog.set_level(logging.WARNING)
    guesses = guesses_of(true_classes(images), torch.zeros(len(images), 1, 4, dtype=torch.float32))
    write_submission(tmp_path / "loc.txt", guesses, images, config)
    assert len((tmp_path / "loc.txt").read_text().splitlines()) == len(images)
    assert [record.getMessage().startswith(words or "") for record in caplog.records] == ([] if words is None else [True])
