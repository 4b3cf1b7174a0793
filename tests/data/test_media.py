"""What stands for images, videos and cameras; frames in and out; names of drawings."""

from pathlib import Path

import numpy as np
import pytest

from detection.data.frames import FrameReader
from detection.data.media import MediaInput, drawing_paths, find_all_inputs, find_inputs
from detection.data.video_writer import FrameWriter
from detection.errors import DatasetError
from tests.media_files import write_picture, write_video


def test_folders_and_globs_list_pictures_and_videos_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "sub/c.jpg", ".hidden.jpg"):
        write_picture(Path(name).with_suffix(".png")).rename(name)
    write_video(Path("film.mp4"))
    Path("notes.txt").write_text("")
    assert [str(found) for found in find_inputs(".")] == ["a.PNG", "b.jpg", "film.mp4"]
    assert [str(found) for found in find_inputs("**/*.jpg")] == ["b.jpg", "sub/c.jpg"]
    assert [found.kind for found in find_inputs("f*")] == ["video"]
    assert find_inputs(str(tmp_path / "[ab].*")) == [
        MediaInput("image", tmp_path / "a.PNG"),
        MediaInput("image", tmp_path / "b.jpg"),
    ]


def test_a_file_whose_name_looks_like_a_glob(tmp_path):
    picture = write_picture(tmp_path / "a[1].jpg")
    assert find_inputs(str(picture)) == [MediaInput("image", picture)]


def test_frames_of_a_camera_keep_real_time(tmp_path):
    """A slow detector's frames are repeated, a quick one's left out."""
    writer = FrameWriter(tmp_path / "camera0.mp4", (48, 64), 10.0)
    for seconds in (0.0, 0.01, 0.02, 0.5):
        writer.write(np.zeros((48, 64, 3), np.uint8), seconds)
    writer.close()
    assert len(list(FrameReader(MediaInput("video", tmp_path / "camera0.mp4")))) == 6


def test_an_unwritable_video_is_the_users_to_mend(tmp_path):
    with pytest.raises(DatasetError, match="cannot write"):
        FrameWriter(tmp_path / "absent" / "a.mp4", (48, 64), 10.0)


def test_drawing_paths_are_all_different():
    inputs = [MediaInput("image", Path(name)) for name in ("x/a.png", "y/a.png", "y/a.jpg", "z/b.png")] + [
        MediaInput("video", Path("a.avi"))
    ]
    paths = drawing_paths(inputs, Path("out"))
    assert [path.name for path in paths] == ["a.jpg", "y_a.jpg", "a_2.jpg", "b.jpg", "a.mp4"]


def test_every_input_is_found_once_and_the_others_are_named(tmp_path):
    picture = write_picture(tmp_path / "a.jpg")
    found, problems = find_all_inputs([str(picture), "nowhere.jpg", str(tmp_path), "camera"])
    assert found == [MediaInput("image", picture), MediaInput("camera", Path("camera"))]
    assert problems == ["there is no file, folder or camera 'nowhere.jpg'"]
