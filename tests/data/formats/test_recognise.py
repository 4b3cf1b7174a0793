"""What folders are taken for, and what is said of those that cannot be."""

import shutil
from pathlib import Path

import pytest

from detection.config import CocoSource, Config, FolderSource, HeldOut, VocSource, parse_config
from detection.data.catalog import load_dataset
from detection.data.formats.recognise import WHOLE, recognise
from detection.data.formats.splits import canonical_split, split_of
from detection.data.settle import settle_sources
from detection.errors import DatasetError
from tests.data.formats import folders
from tests.data.formats.exports import (
    EXPORTS,
    PLAIN,
    cvat_image,
    cvat_xml,
    dump,
    write_cvat,
    write_images,
    write_labelstudio,
    write_roboflow_csv,
    write_vott,
)
from tests.data.pictures import CLASSES, PICTURES, coco_content, voc_xml, write_coco, write_devkit


def write_coco_json(path: Path) -> None:
    dump(path, coco_content(PLAIN))


def coco_of(recognised, split):
    (source,) = recognised.splits[split]
    assert isinstance(source, CocoSource)
    return source.annotations.as_posix(), source.images.as_posix()


def test_coco_as_it_is_published(tmp_path):
    for split in ("train", "val"):
        write_images(tmp_path / f"{split}2017")
        write_coco_json(tmp_path / f"annotations/instances_{split}2017.json")
        dump(tmp_path / f"annotations/captions_{split}2017.json", {"images": [], "annotations": []})
        write_coco_json(tmp_path / f"annotations/masks_{split}2017.json")
    found = recognise(tmp_path)
    assert coco_of(found, "train") == ("annotations/instances_train2017.json", "train2017")
    assert coco_of(found, "val") == ("annotations/instances_val2017.json", "val2017")
    assert list(found.splits) == ["train", "val"] and found.sources() == found.splits["train"]
    assert found.sources("validation") == found.splits["val"]
    assert found.sentence == f"{tmp_path} is read as COCO JSON (images: train 4, val 4)"
    assert len(load_dataset(found.sources(), CLASSES)) == 4


def test_labels_alone_have_their_images_in_the_folder_above(tmp_path):
    """A file of COCO's, or its folder, given in place of the data set's."""
    for split in ("train", "val"):
        write_images(tmp_path / f"{split}2017")
        write_coco_json(tmp_path / f"annotations/instances_{split}2017.json")
    (tmp_path / "other/annotations").mkdir(parents=True)
    for place, splits in (("annotations", ["train", "val"]), ("annotations/instances_val2017.json", ["val"])):
        found = recognise(tmp_path / place)
        assert list(found.splits) == splits and coco_of(found, "val")[1] == "val2017"
        assert len(load_dataset(found.sources("val"), CLASSES)) == 4
    with pytest.raises(DatasetError, match=r"other/annotations: the folder is empty"):
        recognise(tmp_path / "other/annotations")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train2017", "train"), ("Training Images", "train"), ("train_images", "train"), ("images-train", "train"),
        ("trainset", "train"), ("VAL_labels", "val"), ("valid", "val"), ("test-data", "test"), ("images", None),
        ("train station", None), ("latest", None), ("set", None), ("contest_images", None),
    ],
)  # fmt: skip
def test_folders_that_are_called_by_a_split(name, split):
    assert split_of(f"pets/{name}/1.jpg") == split
    assert canonical_split(f" {name} ") == (split or name)


def test_lists_of_darknet_are_counted(tmp_path):
    write_images(tmp_path / "obj")
    names = sorted(path.name for path in (tmp_path / "obj").iterdir())
    for name in names:
        (tmp_path / "obj" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "obj.data").write_text("classes = 1\ntrain = data/train.txt\nvalid = data/test.txt\nnames = data/obj.names\n")
    (tmp_path / "obj.names").write_text("cat\n")
    (tmp_path / "train.txt").write_text("".join(f"data/obj/{name}\n" for name in names[:3]))
    (tmp_path / "test.txt").write_text("".join(f"data/obj/{name}\n" for name in names[3:]))
    assert recognise(tmp_path).sentence.endswith(f"is read as YOLO (images: train 3, val {len(names) - 3})")


def test_coco_of_roboflow(tmp_path):
    for split in ("test", "train", "valid"):
        write_images(tmp_path / split)
        write_coco_json(tmp_path / split / "_annotations.coco.json")
    found = recognise(tmp_path)
    assert list(found.splits) == ["train", "val", "test"]
    assert coco_of(found, "val") == ("valid/_annotations.coco.json", "valid")


@pytest.mark.parametrize("place", ["result.json", "annotations/instances_default.json", "labels/labels_pets.json"])
def test_one_coco_file_and_its_images(place, tmp_path):
    write_images(tmp_path / "images")
    write_coco_json(tmp_path / place)
    found = recognise(tmp_path)
    assert coco_of(found, WHOLE) == (place, "images")
    assert len(load_dataset(found.sources(), CLASSES)) == 4


def test_the_folder_of_coco_images_is_where_their_names_start(tmp_path):
    write_images(tmp_path / "photos/raw")
    content = coco_content(PLAIN)
    for image in content["images"]:
        image["file_name"] = f"raw/{image['file_name']}"
    dump(tmp_path / "all.json", content)
    assert coco_of(recognise(tmp_path), WHOLE) == ("all.json", "photos")


def test_two_coco_files_of_one_split_are_asked_about(tmp_path):
    write_images(tmp_path)
    write_coco_json(tmp_path / "first.json")
    write_coco_json(tmp_path / "second.json")
    with pytest.raises(DatasetError, match=r"holds first\.json and second\.json.*set 'annotations'"):
        recognise(tmp_path)
    assert coco_of(recognise(tmp_path, Path("second.json")), WHOLE) == ("second.json", ".")
    (tmp_path / "second.json").rename(tmp_path / "train.json")
    with pytest.raises(DatasetError, match=r"holds first\.json and train\.json.*set 'annotations'"):
        recognise(tmp_path)


def test_a_devkit_of_two_years(tmp_path):
    for year in ("2007", "2012"):
        for split in ("train", "val", "trainval", "cat_train"):
            write_devkit(tmp_path, PLAIN, year, split)
    write_devkit(tmp_path, PLAIN, "2007", "test")
    found = recognise(tmp_path)
    assert list(found.splits) == ["train", "val", "test", "trainval"]
    years = [source.year for source in found.splits["train"] if isinstance(source, VocSource)]
    assert years == ["2007", "2012"] and len(found.splits["test"]) == 1
    assert found.sources() == found.splits["train"]
    assert found.sentence.endswith("is read as Pascal VOC (images: train 8, val 8, test 4, trainval 8)")


def test_a_year_alone_and_a_devkit_within_wrappers(tmp_path):
    write_devkit(tmp_path / "a/b/VOCdevkit", PLAIN, split="trainval")
    (source,) = recognise(tmp_path).sources()
    assert isinstance(source, VocSource) and source.root == tmp_path / "a/b/VOCdevkit" and source.year == "2007"
    (source,) = recognise(tmp_path / "a/b/VOCdevkit/VOC2007").sources()
    assert len(load_dataset([source], CLASSES)) == 4


def test_splits_of_tables_have_their_own_images(tmp_path):
    """Roboflow gives the images of all splits names of their own; others do not."""
    for split in ("train", "valid"):
        write_roboflow_csv(tmp_path / split)
        shutil.move(tmp_path / split / "train", tmp_path / "moved")
        (tmp_path / split).rmdir()
        shutil.move(tmp_path / "moved", tmp_path / split)
    found = recognise(tmp_path)
    assert list(found.splits) == ["train", "val"]
    for split, folder in (("train", "train"), ("val", "valid")):
        records = load_dataset(found.sources(split), CLASSES, strict=True).records
        assert {record.file.parent for record in records} == {tmp_path / folder} and len(records) == 3


def test_subsets_of_a_cvat_project(tmp_path):
    for subset in ("Train", "Validation"):
        write_images(tmp_path / "images" / subset, PLAIN[:2])
    bodies = [cvat_image(picture, n, subset) for subset in ("Train", "Validation") for n, picture in enumerate(PLAIN[:2])]
    meta = "<project><id>3</id><name>pets</name><subsets>Train\nValidation</subsets></project>"
    (tmp_path / "annotations.xml").write_text(cvat_xml("".join(bodies), meta))
    found = recognise(tmp_path)
    assert list(found.splits) == ["train", "val"]
    records = load_dataset(found.sources("val"), CLASSES, strict=True).records
    assert [record.image_id for record in records] == ["images/Validation/000001.jpg", "images/Validation/000002.jpg"]
    assert len(load_dataset([FolderSource(format="cvat", root=tmp_path)], CLASSES, strict=True)) == 4
    with pytest.raises(DatasetError, match="no split 'test'; the folder has the splits train, val: set 'split'"):
        found.sources("test")


def test_a_file_of_labels_is_recognised_by_itself(tmp_path):
    write_labelstudio(tmp_path)
    write_coco_json(tmp_path / "result.json")
    asked = r"COCO JSON \(result\.json\) or Label Studio \(project.*'annotations' to result\.json or 'format' to labelstudio"
    with pytest.raises(DatasetError, match=asked):
        recognise(tmp_path)
    (source,) = recognise(tmp_path / "result.json").sources()
    assert isinstance(source, CocoSource) and len(load_dataset([source], CLASSES)) == 4
    (source,) = recognise(tmp_path, Path("project-1-at-2024-01-30.json")).sources()
    assert source.format == "labelstudio" and len(load_dataset([source], CLASSES)) == 4


def test_exports_in_a_wrapper_and_beside_litter(tmp_path):
    for kind, (key, write) in EXPORTS.items():
        inner = tmp_path / kind / "export of 2024"
        write(inner)
        (tmp_path / kind / "__MACOSX").mkdir()
        (inner / ".DS_Store").write_bytes(b"\0")
        (inner / "README.txt").write_text("hello\n")
        assert {source.format for source in recognise(tmp_path / kind).sources()} == {key}


def test_folders_that_cannot_be_read_say_why(tmp_path):
    def refused(name: str) -> str:
        with pytest.raises(DatasetError) as error:
            recognise(tmp_path / name)
        assert "\n" not in str(error.value)
        return str(error.value)

    (tmp_path / "empty").mkdir()
    assert refused("empty").endswith("empty: the folder is empty")
    (tmp_path / "pets.zip").write_bytes(b"PK")
    assert "is an archive: unpack it" in refused("pets.zip")
    with pytest.raises(DatasetError, match=r"pets\.zip is an archive: unpack it"):
        load_dataset([FolderSource(format="cvat", root=tmp_path / "pets.zip")], CLASSES)
    (tmp_path / "packed").mkdir()
    shutil.copy(tmp_path / "pets.zip", tmp_path / "packed")
    assert "holds an archive, pets.zip: unpack it" in refused("packed")
    write_images(tmp_path / "bare", PLAIN)
    assert "4 images and no labels" in refused("bare")
    for name in ("cat", "dog"):
        write_images(tmp_path / "classes" / name)
    assert "images in folders ('cat', 'dog') and no labels" in refused("classes")
    write_images(tmp_path / "records/train")
    (tmp_path / "records/train/pets.tfrecord").write_bytes(b"\0")
    assert "TFRecord files (train/pets.tfrecord) are not read" in refused("records")
    write_images(tmp_path / "odd")
    (tmp_path / "odd/labels.csv").write_text("what,is,this\n1,2,3\n")
    assert "no format is recognised by 'labels.csv'" in refused("odd")
    dump(tmp_path / "labels/a.json", {"some": "thing"})
    assert "holds no images, but files of the kinds .json (1)" in refused("labels")


def test_auto_sources_are_settled_each_folder_told_once(tmp_path):
    write_coco(tmp_path / "coco")
    write_vott(tmp_path / "vott")
    auto = [{"format": "auto", "root": str(tmp_path / name), "weight": 2.0, "boxes_in": "stored"} for name in ("coco", "vott")]
    config = parse_config(Config, {"data": {"classes": list(CLASSES), "train": auto, "val": auto[:1]}}, "mine.yaml")
    told: list[str] = []
    settled = settle_sources(config, told.append)
    assert [source.format for source in settled.data.train] == ["coco", "vott"]
    assert not isinstance(settled.data.val, HeldOut) and [source.format for source in settled.data.val] == ["coco"]
    assert all((source.weight, source.boxes_in) == (2.0, "stored") for source in settled.data.train)
    assert len(told) == 2 and "is read as COCO JSON" in told[0] and "is read as VoTT" in told[1]
    assert settle_sources(settled, told.append) is settled and len(told) == 2


def test_without_a_split_a_source_stands_for_that_of_its_place(tmp_path):
    for split in ("train", "valid"):
        write_images(tmp_path / split)
        write_coco_json(tmp_path / split / "_annotations.coco.json")
    source = {"format": "auto", "root": str(tmp_path)}
    values = {"classes": list(CLASSES), "train": [source], "val": [source]}
    data = settle_sources(parse_config(Config, {"data": values}, "mine.yaml")).data
    assert not isinstance(data.val, HeldOut)
    assert [str(each.images) for each in (*data.train, *data.val) if isinstance(each, CocoSource)] == ["train", "valid"]
    with pytest.raises(DatasetError, match=r"no split for data\.test; the folder has the splits train, val: set 'split'"):
        settle_sources(parse_config(Config, {"data": values | {"test": [source]}}, "mine.yaml"))


def test_other_keys_of_an_auto_source_stay(tmp_path):
    write_cvat(tmp_path / "data")
    shutil.move(tmp_path / "data/images", tmp_path / "data/photographs")
    source = FolderSource(format="auto", root=tmp_path / "data", images=Path("photographs"), label_key="kind")
    config = parse_config(Config, {"data": {"classes": list(CLASSES)}}, "mine.yaml")
    config = config.model_copy(update={"data": config.data.model_copy(update={"train": (source,)})})
    (settled,) = settle_sources(config).data.train
    assert isinstance(settled, FolderSource)
    assert settled.images == tmp_path / "data/photographs" and settled.label_key == "kind"
    assert len(load_dataset([settled], CLASSES)) == 4


def write_yolo_of_ultralytics(folder: Path) -> None:
    for split, pictures in (("train", folders.TRAIN), ("val", folders.VAL)):
        folders.write_yolo(folder / "images" / split, folder / "labels" / split, pictures)
    folders.write_text(folder / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")


def write_yolo_of_roboflow(folder: Path) -> None:
    for split, pictures in (("train", folders.TRAIN), ("valid", folders.VAL)):
        folders.write_yolo(folder / split / "images", folder / split / "labels", pictures)
    names = "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    folders.write_text(folder / "data.yaml", names)
    folders.write_text(folder / "README.roboflow.txt", "pets - v1\n==============\n\nIt includes 4 images.\n")


def write_voc_of_roboflow(folder: Path) -> None:
    for split, pictures in (("train", folders.TRAIN), ("valid", folders.VAL)):
        folders.write_images(folder / split, pictures)
        for picture in pictures:
            folders.write_text(folder / split / f"{picture.stem}.xml", voc_xml(picture))


def write_labelme_folders(folder: Path) -> None:
    for split, pictures in (("train", folders.TRAIN), ("val", folders.VAL)):
        folders.write_labelme(folder / split, folder / split, pictures)


@pytest.mark.parametrize(
    ("write", "key"),
    [
        (write_yolo_of_ultralytics, "yolo"),
        (write_yolo_of_roboflow, "yolo"),
        (write_voc_of_roboflow, "labelimg"),
        (write_labelme_folders, "labelme"),
    ],
)
def test_folders_with_a_label_file_for_each_image(write, key, tmp_path):
    write(tmp_path / "pets")
    found = recognise(tmp_path)  # within a wrapper
    assert list(found.splits) == ["train", "val"] and {each.format for each in found.sources()} == {key}
    for split, pictures in (("train", folders.TRAIN), ("val", folders.VAL)):
        folders.expect_pictures(load_dataset(found.sources(split), CLASSES).records, pictures, tolerance=0.01)


def test_the_data_file_of_yolo_stands_for_its_folder(tmp_path):
    write_yolo_of_ultralytics(tmp_path)
    for found in (recognise(tmp_path / "data.yaml"), recognise(tmp_path, Path("data.yaml"))):
        assert list(found.splits) == ["train", "val"]
        folders.expect_pictures(load_dataset(found.sources("val"), CLASSES).records, folders.VAL, tolerance=0.01)
    (source,) = recognise(tmp_path, Path("labels/train")).sources()
    assert source.format == "yolo" and len(load_dataset([source], CLASSES)) >= 2


def test_flat_folders(tmp_path):
    folders.write_yolo(tmp_path / "yolo", tmp_path / "yolo")
    folders.write_text(tmp_path / "yolo/classes.txt", "cat\ndog\n")
    folders.write_labelme(tmp_path / "labelme", tmp_path / "labelme")
    folders.write_images(tmp_path / "labelimg")
    for picture in PICTURES:
        folders.write_text(tmp_path / "labelimg" / f"{picture.stem}.xml", voc_xml(picture))
    for key in ("yolo", "labelme", "labelimg"):
        found = recognise(tmp_path / key)
        assert list(found.splits) == [WHOLE] and {each.format for each in found.sources()} == {key}
        folders.expect_pictures(load_dataset(found.sources(), CLASSES).records, tolerance=0.01)


def test_labels_of_two_kinds_are_asked_about(tmp_path):
    folders.write_yolo(tmp_path, tmp_path)
    for picture in PICTURES:
        folders.write_text(tmp_path / f"{picture.stem}.xml", voc_xml(picture))
    with pytest.raises(
        DatasetError, match=r"be YOLO \(000001\.txt\) or XML .*: set the source's 'format' to yolo or 'format' to l"
    ):
        recognise(tmp_path)
    folders.write_text(tmp_path / "labels.json", "{}")
    folders.write_text(tmp_path / "boxes/a.csv", "filename,class,xmin,ymin,xmax,ymax\n000001.jpg,cat,1,2,3,4\n")
    (source,) = recognise(tmp_path, Path("boxes")).sources()
    assert source.format == "csv" and len(load_dataset([source], CLASSES)) == 1
    with pytest.raises(DatasetError, match=r"there is no .*boxen: 'annotations' of the source must name a file or folder"):
        recognise(tmp_path, Path("boxen"))
