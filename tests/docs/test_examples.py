"""The scripts of docs/examples run, as a reader would run them."""

import torch

from docs.examples import backbone_elsewhere, own_data


def test_own_data_is_trained_on_evaluated_and_detected_in(tmp_path, capsys):
    assert own_data.main(["--output", str(tmp_path), "--steps", "2"]) == 0
    shown = capsys.readouterr().out
    assert "2 steps in" in shown and "COCO AP" in shown
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 4
    assert (tmp_path / "run/best.pt").exists()


def test_the_backbone_learns_another_task():
    assert backbone_elsewhere.main(["--backbone", "resnet18", "--steps", "15"]) > 0.8


def test_the_head_gives_a_score_for_each_pixel_at_any_size():
    model = backbone_elsewhere.PixelClassifier(backbone_elsewhere.build_backbone("resnet18"))
    assert model(torch.randint(256, (1, 3, 70, 90), dtype=torch.uint8)).shape == (1, 70, 90)
