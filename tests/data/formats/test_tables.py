"""Tables of boxes: columns by their names, kinds without a header, separators, and rows that lack something."""

from pathlib import Path

import pytest

from detection.config import FolderSource
from detection.data.formats.recognise import recognise
from detection.data.formats.tables import Columns, find_columns
from detection.errors import DatasetError
from tests.data.formats.exports import PLAIN, write_images
from tests.data.formats.reading import read

SIZES = "bbox_width,bbox_height,image_name,image_width,image_height"


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", Columns(0, 3, (4, 5, 6, 7), False, (2, 1))),
        ("image,xmin,ymin,xmax,ymax,label", Columns(0, 5, (1, 2, 3, 4), False)),
        ("Image_Path,X1,Y1,X2,Y2,Class_Name", Columns(0, 5, (1, 2, 3, 4), False)),
        (f"label_name,bbox_x,bbox_y,{SIZES}", Columns(5, 0, (1, 2, 3, 4), True, (7, 6))),
        ("file,x,y,width,height,label", Columns(0, 5, (1, 2, 3, 4), True)),
        ("file,label,left,top,w,h,width,height", Columns(0, 1, (2, 3, 4, 5), True, (7, 6))),
        ("label,file,ymax,xmax,ymin,xmin", Columns(1, 0, (5, 4, 3, 2), False)),
        ("photos/a.jpg,1,2,3,4,cat", Columns(0, 5, (1, 2, 3, 4), False, has_header=False)),
        ("photos/a.PNG,,,,,", Columns(0, 5, (1, 2, 3, 4), False, has_header=False)),
        ("cat,1,2,3.5,4,a.jpg,60,40", Columns(5, 0, (1, 2, 3, 4), True, (7, 6), has_header=False)),
        ("filename,class", None),
        ("image,xmin,ymin,xmax,ymax", Columns(0, None, (1, 2, 3, 4), False)),
        ("image_id,width,height,bbox,source", Columns(0, None, (3,), None, (2, 1))),
        ("image_name,label_name,bbox", Columns(0, 1, (2,), None)),
        ("image_id,PredictionString", None),
        ("a,b,c", None),
        ("", None),
    ],
)  # fmt: skip
def test_columns_by_their_names(header, columns):
    assert find_columns(header.split(",")) == columns


def test_columns_that_cannot_be_told_are_asked_for(tmp_path):
    (tmp_path / "boxes.csv").write_text("picture,what,a,b,c,d\nx.jpg,cat,1,2,3,4\n")
    with pytest.raises(DatasetError, match=r"first line does not tell which columns.*name them filename,class,xmin"):
        read(tmp_path / "boxes.csv", "csv")
    with pytest.raises(DatasetError, match=r"holds no table of boxes \(\.csv\)"):
        read(tmp_path, "csv")


@pytest.mark.parametrize(("separator", "point"), [(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")])
def test_separators_and_decimal_points(separator, point, tmp_path):
    write_images(tmp_path, PLAIN[:1])
    rows = [
        ["filename", "class", "xmin", "ymin", "xmax", "ymax"],
        ["000001.jpg", "cat", f"1{point}5", "2", f"30{point}25", "20"],
    ]
    (tmp_path / "boxes.csv").write_text("\ufeff" + "\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n")
    assert read(tmp_path, "csv")[0] == {"000001.jpg": [("cat", (1.5, 2, 30.25, 20))]}


def test_rows_that_lack_something(tmp_path):
    write_images(tmp_path, PLAIN)
    rows = [
        "filename,class,xmin,ymin,xmax,ymax",
        "000001.jpg,cat,1,2,3,4",
        "000001.jpg,cat,1,2,3",
        "000001.jpg,cat,1,2,3,x",
        "000001.jpg,,1,2,3,4",
        ",cat,1,2,3,4",
        "000003.jpg,,,,,",
        '"000002.jpg","cat, or dog",1,2,3,4',
    ]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    objects, faults = read(tmp_path, "csv")
    assert objects == {"000001.jpg": [("cat", (1, 2, 3, 4))], "000003.jpg": [], "000002.jpg": [("cat, or dog", (1, 2, 3, 4))]}
    assert {kind: len(notes) for kind, notes in faults.by_kind().items()} == {
        "row without four numbers, dropped": 2,
        "object without a class, dropped": 1,
        "row without an image, dropped": 1,
    }
    assert "boxes.csv, line 3" in faults.notes[0].message


def test_a_table_of_one_split(tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / split, PLAIN[:1])
        (tmp_path / f"{split}_labels.csv").write_text(f"filename,class,xmin,ymin,xmax,ymax\n{split}/000001.jpg,cat,1,2,3,4\n")
    assert list(read(tmp_path, "csv", split="training")[0]) == ["train/000001.jpg"]
    assert list(read(tmp_path, "csv")[0]) == ["test/000001.jpg", "train/000001.jpg"]
    with pytest.raises(DatasetError, match="split 'val' of .* holds no table"):
        read(tmp_path, "csv", split="val")


@pytest.mark.parametrize(
    ("rows", "boxes", "said"),
    [
        (['"[10.0, 20.0, 30.0, 40.0]"', '"[50, 5, 10, 10]"'], [(10, 20, 40, 60), (50, 5, 60, 15)], "x, y, width, height"),
        (['"[10, 20, 30, 40]"', '"5 6 7 8"'], [(10, 20, 30, 40), (5, 6, 7, 8)], "x1, y1, x2, y2"),
        (['"(10,20,30,40)"', '"(50, 5)"'], [(10, 20, 30, 40)], "x1, y1, x2, y2"),
        (['"[10, 20, 30, 40]"', ""], [(10, 20, 30, 40)], "x1, y1, x2, y2"),
    ],
)
def test_boxes_as_text_without_a_class(rows, boxes, said, tmp_path):
    """As in tables of competitions: "[x, y, w, h]" or corners, which all rows together tell; images without a suffix."""
    write_images(tmp_path, PLAIN[:2])
    (tmp_path / "train.csv").write_text("\n".join(["image_id,width,height,bbox", *(f"000001,60,40,{row}" for row in rows)]))
    objects, faults = read(tmp_path, "csv")
    assert objects == {"000001.jpg": [("object", box) for box in boxes]}
    assert list(faults.by_kind()) == (["row without four numbers, dropped"] if '"(50, 5)"' in rows else [])
    kind, no_class, _, unnamed = faults.information
    assert f"boxes are taken as {said}" in kind and "no column for the class" in no_class
    assert unnamed == f"{tmp_path}: 1 images are in no label file, and are left out, e.g. {tmp_path / '000002.jpg'}"


def test_a_table_without_classes_is_another_thing_beside_one_with_classes(tmp_path):
    write_images(tmp_path, PLAIN[:1])
    (tmp_path / "boxes.csv").write_text("image,label,xmin,ymin,xmax,ymax\n000001.jpg,cat,1,2,3,4\n")
    (tmp_path / "found.csv").write_text("image,xmin,ymin,xmax,ymax,score\n000001.jpg,1,2,3,4,0.5\n")
    assert read(tmp_path, "csv")[0] == {"000001.jpg": [("cat", (1, 2, 3, 4))]}
    assert [each.annotations for each in recognise(tmp_path).sources() if each.format == "csv"] == [Path("boxes.csv")]


@pytest.mark.parametrize("place", ["{split}_labels.csv", "data/{split}_labels.csv", "{split}.csv"])
@pytest.mark.parametrize("images", ["{split}", "images/{split}", "{split}_images"])
def test_images_of_one_name_are_those_of_the_tables_split(place, images, tmp_path):
    """Whatever the folder is called that all lies in."""
    root = tmp_path / "train" / "pets"
    for split in ("train", "test"):
        write_images(root / images.format(split=split), PLAIN[:1])
        table = root / place.format(split=split)
        table.parent.mkdir(exist_ok=True)
        table.write_text(f"filename,class,xmin,ymin,xmax,ymax\n000001.jpg,{split},1,2,3,4\n")
    found = recognise(root)
    assert list(found.splits) == ["train", "test"]
    for split, (source,) in found.splits.items():
        assert isinstance(source, FolderSource)
        objects, faults = read(root, "csv", annotations=source.annotations, images=source.images)
        assert objects == {f"{images.format(split=split)}/000001.jpg": [(split, (1, 2, 3, 4))]}
        assert not any("in no label file" in line for line in faults.information)
