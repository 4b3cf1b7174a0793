"""The data of the section of pictures, and the thumbnails beside the page."""

import base64
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detection.data.catalog import Dataset
from detection.data.images import read_image, read_reduced
from detection.evaluation.confusion import reach
from detection.evaluation.errors import ErrorKind
from detection.evaluation.lost_ap import divided_lost_ap
from detection.evaluation.matches import NONE
from detection.report import thumbnails
from detection.report.packed import NOTHING, packed, packed_shares
from detection.report.reported import ReportedDetector, analyse
from detection.report.sections.pictures import (
    BESIDE,
    FOUND,
    IGNORED,
    MISSED,
    SCORE_STEPS,
    build,
    choose_images,
    names_of,
    score_steps,
    scores_in_steps,
)
from detection.structures import Detections, Record
from detection.tiles import Window
from tests.report.scenes import HOSTILE_NAMES, scene


def analysed(dataset, detections, **changes):
    return analyse(ReportedDetector("mine", dataset, detections, {}, {}, **changes))


def numbers_of(text, kind):
    return np.frombuffer(base64.b64decode(text), dtype=f"<{kind}").astype(int)


def boxes_of(text):
    return numbers_of(text, "u2").reshape(-1, 4) / NOTHING


def record_of(file, size_hw, **changes):
    empty = torch.zeros(0)
    return Record(0, file, size_hw, empty.reshape(0, 4), empty.long(), empty.bool(), empty.bool(), empty, **changes)


# --- which images ---------------------------------------------------------------------------------------------------------


def test_images_come_by_lost_ap_and_equal_ones_in_their_order():
    assert choose_images(np.array([0.1, 0.3, 0.0, 0.3, 0.1])).tolist() == [1, 3, 0, 4, 2]


def test_at_most_five_hundred_images_are_shown():
    lost = np.arange(600.0)
    assert choose_images(lost).tolist() == list(range(599, 99, -1))


def test_lost_ap_of_an_image_is_that_of_its_errors(tmp_path):
    analysis = analysed(*scene(5))
    data = build(analysis, tmp_path)
    lost = divided_lost_ap(analysis.matches, 0)
    for number, value in zip(data.numbers, data.lost_ap, strict=True):
        found, there = (table.images == number for table in (analysis.matches.detections, analysis.matches.objects))
        assert value == pytest.approx(lost.detections[found].sum() + lost.objects[there].sum(), abs=1e-6)


# --- the data -------------------------------------------------------------------------------------------------------------


def test_numbers_survive_packing():
    values = np.array([[0, 1, 258], [-1, 70000, 65534]])
    assert numbers_of(packed(values, "u2"), "u2").tolist() == [0, 1, 258, NOTHING, NOTHING, 65534]
    assert numbers_of(packed(np.array([3, -1]), "u1"), "u1").tolist() == [3, 255]
    assert numbers_of(packed_shares(np.array([-0.5, 0.0, 0.25, 1.5])), "u2").tolist() == [0, 0, 16384, NOTHING]


@pytest.fixture(scope="module")
def shown(module_path):
    """Twenty images, and the rows of the matches that the data's rows stand for, found by plain loops."""
    analysis = analysed(*scene(20, num_detections=60))
    data = build(analysis, module_path / "report")
    found, there = analysis.matches.detections, analysis.matches.objects
    detections, objects = [], []
    for number in data.numbers:
        rows = [row for row in range(len(found)) if found.images[row] == number and found.scores[row] >= 0.05]
        detections.append(rows)
        objects.append([row for row in range(len(there)) if there.images[row] == number])
    return SimpleNamespace(analysis=analysis, data=data, detections=detections, objects=objects)


def test_detections_are_those_of_each_image_that_score_enough(shown):
    data, table = shown.data.detections, shown.analysis.matches.detections
    rows = np.concatenate(shown.detections)
    assert data.counts == [len(each) for each in shown.detections]
    assert numbers_of(data.labels, "u2").tolist() == table.labels[rows].tolist()
    np.testing.assert_allclose(numbers_of(data.scores, "u2") / SCORE_STEPS, table.scores[rows], atol=0.5 / SCORE_STEPS)
    np.testing.assert_allclose(
        boxes_of(data.boxes) * [320, 240, 320, 240], table.boxes[rows].clip(0, [320, 240] * 2), atol=0.01
    )
    assert numbers_of(data.kinds, "u1").tolist() == shown.analysis.errors.kinds[rows].tolist()
    truth = shown.analysis.confusion.true_labels[rows]
    assert numbers_of(data.true_labels, "u2").tolist() == np.where(truth < 0, NOTHING, truth).tolist()


def test_a_detection_names_the_object_that_makes_it_what_it_is(shown):
    """With its IoU, which is that of the matches where those have it."""
    matches, kinds = shown.analysis.matches, shown.analysis.errors.kinds
    ious = numbers_of(shown.data.detections.ious, "u1")
    places = {row: place for rows in shown.objects for place, row in enumerate(rows)}
    expected = []
    for iou, row in zip(ious, (row for rows in shown.detections for row in rows), strict=True):
        if kinds[row] == ErrorKind.BACKGROUND:
            expected.append(NOTHING)
            assert iou == 0
        elif kinds[row] in (ErrorKind.LOCALISATION, ErrorKind.DUPLICATE):
            expected.append(places[matches.best_same[row]])
            assert iou == pytest.approx(100 * matches.best_same_iou[row], abs=0.51)
        elif kinds[row] in (ErrorKind.CLASS, ErrorKind.BOTH):
            expected.append(places[matches.best_other[row]])
            assert iou == pytest.approx(100 * matches.best_other_iou[row], abs=0.51)
        else:
            expected.append(places[matches.object_of[0][row]])
    assert numbers_of(shown.data.detections.objects, "u2").tolist() == expected


def test_objects_say_what_became_of_them(shown):
    matches, errors, data = shown.analysis.matches, shown.analysis.errors, shown.data.objects
    rows = np.concatenate(shown.objects).astype(int)
    found_by, places = matches.detection_of(0), {row: place for rows in shown.detections for place, row in enumerate(rows)}
    states = []
    for row in rows:
        if matches.objects.ignored[row]:
            states.append(IGNORED)
        elif found_by[row] >= 0:
            states.append(FOUND)
        else:
            states.append(MISSED if errors.missed[row] else BESIDE)
    assert set(states) == {FOUND, BESIDE, MISSED, IGNORED}
    assert data.counts == [len(each) for each in shown.objects]
    assert numbers_of(data.states, "u1").tolist() == states
    assert numbers_of(data.found_by, "u2").tolist() == [places.get(found_by[row], NOTHING) for row in rows]
    taken = shown.analysis.confusion.found_by[rows]
    scores = np.where(taken < 0, -1, matches.detections.scores[taken])
    expected = np.where(scores < 0, NOTHING, np.rint(scores * SCORE_STEPS))
    assert numbers_of(data.scores, "u2").tolist() == expected.tolist()


def test_sizes_are_those_of_coco(tmp_path):
    sides = torch.tensor([31.9, 32.0, 95.9, 96.0])
    corners = torch.zeros(4, 2)
    boxes, no = torch.cat([corners, sides[:, None].repeat(1, 2)], dim=1), torch.zeros(4).bool()
    record = Record(0, tmp_path / "a.jpg", (100, 100), boxes, torch.arange(4), no, no, sides**2)
    found = Detections(boxes + torch.tensor([0.0, 0, 4, 4]), torch.linspace(0.9, 0.6, 4), torch.arange(4))
    data = build(analysed(Dataset(("a", "b", "c", "d"), [record]), {0: found}), tmp_path)
    assert numbers_of(data.objects.sizes, "u1").tolist() == [0, 1, 1, 2]
    # Of a detection it is that of its box, here 4 pixels wider and higher.
    assert numbers_of(data.detections.sizes, "u1").tolist() == [1, 1, 2, 2]


def test_of_an_image_the_best_hundred_detections_are_shown(tmp_path):
    dataset, detections = scene(2, tuple("abcdefgh"), num_detections=300)
    data = build(analysed(dataset, detections), tmp_path)
    assert data.detections.counts == [100, 100]
    best = np.sort(detections[data.numbers[0]].scores.numpy())[::-1][:100]
    np.testing.assert_allclose(numbers_of(data.detections.scores, "u2")[:100] / SCORE_STEPS, best, atol=1e-4)


@pytest.mark.parametrize("what", ["no images", "no detections", "no objects"])
def test_nothing_is_shown_as_nothing(tmp_path, what):
    dataset, detections = scene(0 if what == "no images" else 3, num_objects=0 if what == "no objects" else 6)
    data = build(analysed(dataset, {} if what == "no detections" else detections), tmp_path)
    assert len(data.numbers) == len(data.files) == len(data.faults) == len(dataset.records)
    assert (sum(data.detections.counts) == 0) == (what != "no objects")
    assert (sum(data.objects.counts) == 0) == (what != "no detections")


# --- thumbnails and names -------------------------------------------------------------------------------------------------


def test_thumbnails_are_named_by_the_images_numbers(tmp_path):
    data = build(analysed(*scene(3, folder=tmp_path)), tmp_path / "report")
    assert data.faults == [""] * 3
    files = sorted(file.name for file in (tmp_path / "report/pictures").iterdir())
    assert files == ["000000.webp", "000001.webp", "000002.webp"]
    with Image.open(tmp_path / "report/pictures/000002.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (320, 240))


@pytest.mark.parametrize(
    ("size_hw", "expected_hw"), [((1000, 2000), (320, 640)), ((700, 20), (640, 18)), ((3, 5000), (1, 640))]
)
def test_the_longer_side_is_bounded_and_the_shape_kept(tmp_path, size_hw, expected_hw):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((*size_hw, 3), np.uint8))
    assert thumbnails.thumbnail(record_of(tmp_path / "a.jpg", size_hw), 10**8).shape[:2] == expected_hw


def smooth(height, width):
    """A picture without detail: made smaller in any way it is the same."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 127 + 0 * x], axis=2).astype(np.uint8)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_photograph_decoded_small_shows_the_same(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(smooth(2001, 3003)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    whole = read_image(tmp_path / "a.jpg")
    assert max(read_reduced(tmp_path / "a.jpg", 640).shape) == 751  # a quarter, rounded up
    small = thumbnails.thumbnail(record_of(tmp_path / "a.jpg", whole.shape[:2]), 10**8)
    expected = cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).max() <= 6


def test_of_a_tile_its_window_is_shown(tmp_path):
    image = smooth(1500, 2000)
    cv2.imwrite(str(tmp_path / "a.png"), image[:, :, ::-1])
    tile = record_of(tmp_path / "a.png", (1500, 2000), window=Window(1000, 500, 400, 300))
    np.testing.assert_array_equal(thumbnails.thumbnail(tile, 10**8), image[500:800, 1000:1400])
    data = build(analysed(Dataset(("cat",), [tile]), {}), tmp_path / "report")
    assert (data.widths, data.heights) == ([400], [300])
    assert data.files == ["a.png (400 x 300 at 1000, 500)"]


def test_an_image_that_cannot_be_read_has_no_file_and_a_reason(tmp_path):
    dataset, detections = scene(3, folder=tmp_path)
    missing, damaged, other = (record.file for record in dataset.records)
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:500])
    cv2.imwrite(str(other), np.zeros((10, 20, 3), np.uint8))
    data = build(analysed(dataset, detections), tmp_path / "report")
    reasons = dict(zip(data.numbers, data.faults, strict=True))
    for number, words in enumerate(["No such file", "damaged or cut short", "is 20x10 as displayed"]):
        assert words in reasons[number]
    assert not list(tmp_path.glob("report/pictures/*"))
    assert data.widths == [320] * 3 and sum(data.objects.counts) > 0


def test_an_image_that_is_too_large_has_a_reason(tmp_path):
    data = build(analysed(*scene(1, folder=tmp_path), max_pixels=320 * 240 - 1), tmp_path / "report")
    assert "too large: 320x240" in data.faults[0]


def test_thumbnails_of_an_earlier_report_go_and_other_files_stay(tmp_path):
    build(analysed(*scene(5, folder=tmp_path)), tmp_path / "report")
    folder = tmp_path / "report/pictures"
    (folder / ".000003.webp.0123abcd.tmp").touch()
    (folder / "mine.webp").touch()
    build(analysed(*scene(2, folder=tmp_path)), tmp_path / "report")
    assert sorted(file.name for file in folder.iterdir()) == ["000000.webp", "000001.webp", "mine.webp"]


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), smooth(1200, 1600))
    record = record_of(tmp_path / "a.png", (1200, 1600))

    def peak(count):
        tracemalloc.start()
        thumbnails.write_thumbnails(((number, record) for number in range(count)), tmp_path / "report", 10**8)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(6) < 1.2 * peak(2)


def test_files_are_named_from_the_folder_that_they_share(tmp_path):
    files = [tmp_path / "a/x/1.jpg", tmp_path / "a/y/1.jpg", tmp_path / "a/y/z/2.jpg"]
    assert names_of([record_of(file, (1, 1)) for file in files]) == ["x/1.jpg", "y/1.jpg", "y/z/2.jpg"]
    assert names_of([record_of(tmp_path / "only.jpg", (1, 1))]) == ["only.jpg"]


def test_names_are_text_that_can_be_shown(tmp_path):
    names = [*HOSTILE_NAMES, "line\nbreak", "\u202egpj.exe", "byte \udcff"]
    shown = names_of([record_of(tmp_path / "folder" / name.replace("/", "_"), (1, 1)) for name in names])
    assert all(name.isprintable() for name in shown) and "line\\nbreak" in shown


@pytest.mark.parametrize("greatest", [1.0, 1.7, 6.0])
def test_scores_are_on_the_side_of_each_hundredth_that_the_confusion_matrix_has_them_on(greatest):
    edges = np.arange(101) / 100
    near = np.concatenate([edges, edges - 1e-9, edges + 1e-9, edges - 4e-5, edges.astype(np.float32), [greatest, -0.2, -0.0]])
    steps = score_steps(near)
    packed_scores = scores_in_steps(near, steps)
    for level in range(101):
        shown = (packed_scores >= round(level / 100 * steps)) & (packed_scores != NONE)
        assert (shown == reach(near, level / 100)).all()
    there = near >= 0
    np.testing.assert_allclose(packed_scores[there] / steps, near[there], atol=1 / steps)


@pytest.mark.parametrize("scale", [100.0, 1e6, 1e300])
def test_scores_above_one_are_shown_as_they_are(tmp_path, scale):
    dataset, found = scene(6)
    found = {key: replace(each, scores=each.scores.double() * scale) for key, each in found.items()}
    analysis = analysed(dataset, found)
    data = build(analysis, tmp_path)
    shown = numbers_of(data.detections.scores, "u2")
    assert shown.max() < NOTHING and shown.max() / data.score_steps == pytest.approx(analysis.matches.detections.scores.max())
    taken = numbers_of(data.objects.scores, "u2") != NOTHING
    assert taken.sum() == (analysis.confusion.found_by >= 0).sum()
