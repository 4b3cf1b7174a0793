import pytest
import torch

from detection.data.images import read_image
from detection.errors import DatasetError
from detection.localisation.images import read_loc_images
from detection.localisation.test_loading import loc_test_loader
from tests.localisation.loc_kit import make_config, write_image, write_loc


@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_once_in_order(tmp_path, workers):
    config = make_config(write_loc(tmp_path), data={"workers": workers})
    images = read_loc_images(config.data, config.data.val)
    found = list(loc_test_loader(images, config))
    assert [index for index, _ in found] == list(range(6))
    for index, image in found:
        assert isinstance(image, torch.Tensor) and image.shape == (3, 40, 60)
        assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(read_image(images.file_of(index))))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_are_values(tmp_path, workers):
    config = make_config(write_loc(tmp_path), data={"workers": workers})
    images = read_loc_images(config.data, config.data.train)
    (tmp_path / "Data/CLS-LOC/train/n01/n01_0.JPEG").unlink()
    write_image(tmp_path, "train", "n02/n02_0", "n02", size_hw=(60, 40))
    write_image(tmp_path, "train", "n02/n02_1", "n02", size_hw=(80, 120))
    found = dict(loc_test_loader(images, config))
    assert isinstance(found[0], DatasetError) and "n01_0.JPEG" in str(found[0])
    assert isinstance(found[2], DatasetError) and "40x60 as displayed, but its annotation says 60x40" in str(found[2])
    assert isinstance(found[3], torch.Tensor) and found[3].shape == (3, 80, 120)
    assert all(isinstance(found[index], torch.Tensor) for index in (1, 4, 5))


def test_no_images(tmp_path):
    config = make_config(write_loc(tmp_path))
    assert list(loc_test_loader(read_loc_images(config.data, config.data.val).subset([]), config)) == []
