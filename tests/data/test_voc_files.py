"""Which image a line of a split means, and XML that should not be trusted."""

import codecs
import os
import subprocess
import sys
import unicodedata

import pytest
from PIL import Image

from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.data.voc import find_image, open_folder, read_image_set, read_voc
from detection.data.voc_xml import MAX_XML_BYTES, parse_xml
from detection.errors import DatasetError, MissingImageError
from detection.evaluation.devkit import read_devkit
from tests.data.pictures import CLASSES, voc_source

OBJECT = "<object><name>cat</name><bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"


@pytest.fixture
def folder(tmp_path):
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def add_image(folder, name, filename=None, annotated=True):
    """An image of its own colour, and an annotation of its stem."""
    Image.new("RGB", (12, 10)).save(folder / "JPEGImages" / name, format="PNG")
    if annotated:
        tag = "" if filename is None else f"<filename>{filename}</filename>"
        xml = f"<annotation>{tag}{OBJECT.format(2)}</annotation>"
        (folder / "Annotations" / f"{name.rpartition('.')[0]}.xml").write_text(xml, encoding="utf-8")


def read(folder, *lines, strict=False, annotated=True):
    (folder / "ImageSets/Main/x.txt").write_bytes("\n".join(lines).encode())
    source = voc_source(folder, None, "x").model_copy(update={"annotated": annotated})
    faults = Faults(strict=strict)
    return [(record.image_id, record.file.name) for record in read_voc(source, folder, ClassMap.to(CLASSES), faults)]


NAMES = (
    "photo.jpg",
    "photo 1.jpg",
    "photo 0.jpg",
    "photo -1.jpg",
    "a.b.jpg",
    " lead.jpg",
    "é\u0085x.jpg",
    "plain.png",
    "1.jpg",
)


@pytest.mark.parametrize("form", ["{}", "JPEGImages/{}", "./{}", "{root}/JPEGImages/{}", "{}.jpg", "JPEGImages/{}.jpg"])
@pytest.mark.parametrize("flag", ["", "  1", " -1", "  0", "\t1"])
def test_every_way_to_write_a_line_means_the_same_image(folder, form, flag):
    for name in NAMES:
        add_image(folder, name)
    for name in NAMES:
        stem, _, suffix = name.rpartition(".")
        line = form.replace(".jpg", f".{suffix}").format(stem, root=folder)
        (folder / "ImageSets/Main/x.txt").write_bytes((line + flag).encode())
        source = voc_source(folder, None, "x")
        if stem == "photo" and flag == " -1":
            continue  # the image of that name, see below
        (record,) = read_voc(source, folder, ClassMap.to(CLASSES), Faults())
        assert (record.image_id, record.file.name) == (stem, name), (line, flag)
        assert [each.image_id for each in read_devkit(folder, "x").records] == [stem]


def test_the_whole_line_is_looked_up_before_a_flag_is_seen_in_it(folder):
    add_image(folder, "photo.jpg")
    assert read(folder, "photo 1", "") == [("photo", "photo.jpg")]
    add_image(folder, "photo 1.jpg")
    assert read(folder, "photo 1", "photo  -1") == [("photo 1", "photo 1.jpg"), ("photo", "photo.jpg")]
    assert read(folder, "photo 1 1", "photo  0") == [("photo 1", "photo 1.jpg"), ("photo", "photo.jpg")]


def test_an_image_without_its_annotation_is_not_taken_for_another(folder):
    add_image(folder, "photo.jpg")
    add_image(folder, "photo 1.jpg", annotated=False)
    with pytest.raises(DatasetError, match=r"photo 1\.xml"):
        read(folder, "photo 1")


@pytest.mark.parametrize(
    "line", ["sub/photo", "../photo", "../VOC2012/JPEGImages/photo.jpg", "/other/JPEGImages/photo.jpg", ".."]
)
def test_other_folders_are_not_ours(folder, line):
    add_image(folder, "photo.jpg")
    with pytest.raises(DatasetError, match="no image of"):
        read(folder, line)


@pytest.mark.parametrize(
    ("names", "filename", "line", "found"),
    [
        (["a.jpg", "a.png"], "a.jpg", "a", "a.jpg"),
        (["a.jpg", "a.png"], "a.png", "a", "a.png"),
        (["a.jpg", "a.png"], "C:\\\\photos\\a.png", "a", "a.png"),
        (["a.jpg", "a.png"], "photos/a.png", "a", "a.png"),
        (["a.jpg", "a.png"], None, "a.png", "a.png"),
        (["a.jpg", "a.png"], "a.png", "a.png  1", "a.png"),
        (["a.jpg", "a.jxl"], None, "a", "a.jpg"),
        (["a.jpg"], "renamed.png", "a", "a.jpg"),
        (["a.jpg", "a.png"], None, "a", "cannot be told"),
        (["a.jpg", "a.png"], "b.jpg", "a", "cannot be told"),
        (["a.jpg", "a.JPG"], None, "a", "cannot be told"),
        (["a.jpg", "a.png"], "a.jpg", "a.png", "cannot be told"),
        (["a.jpg"], "a.png", "a.png", "no image 'a.png' in .*, but 'a.jpg'"),
        (["a.jpg", "a.png"], "a.jpg", "a.bmp", "no image 'a.bmp'.*skip would leave it out"),
        (["a.jxl"], None, "a", "of a kind that is not read"),
        (["a.txt"], None, "a", "no image of 'a' .*skip would leave it out"),
    ],
)  # fmt: skip
def test_one_stem_and_several_files(folder, names, filename, line, found):
    for name in names:
        add_image(folder, name, filename)
    if found in names:
        assert read(folder, line) == [("a", found)]
        return
    with pytest.raises(DatasetError, match=found):
        read(folder, line)


def test_unannotated_splits_look_up_images_the_same_way(folder):
    for name in ("photo.jpg", "photo 1.jpg", "two.jpg", "two.png"):
        add_image(folder, name, annotated=False)
    assert read(folder, "photo 1", "two.png", annotated=False) == [("photo 1", "photo 1.jpg"), ("two", "two.png")]
    with pytest.raises(DatasetError, match="cannot be told"):
        read(folder, "two", annotated=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("photo\n".encode("utf-16-le"), r"no image of 'p\\x00h"),
        (b"caf\xe9\n", "not a text file in UTF-8"),
        (b"", "lists no image"),
        (b"\xef\xbb\xbf\n \n", "lists no image"),
        (b"a\0b\n", r"no image of 'a\\x00b'"),
        (b"x" * 10**6, "no image of 'xxx"),
        (b"photo\x1b[31m\n", r"no image of 'photo\\x1b\[31m'"),
    ],
)
def test_splits_that_cannot_be_read(folder, content, message):
    add_image(folder, "photo.jpg")
    (folder / "ImageSets/Main/x.txt").write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_voc(voc_source(folder, None, "x"), folder, ClassMap.to(CLASSES), Faults())
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(folder, encoding):
    add_image(folder, "photo.jpg")
    (folder / "ImageSets/Main/x.txt").write_bytes("photo\r\n".encode(encoding))
    assert [entry.stem for entry in read_image_set(folder, "x", {"photo"})] == ["photo"]


@pytest.mark.skipif(os.name != "posix", reason="pipes in folders are POSIX's")
def test_pipes_are_not_waited_for(folder):
    add_image(folder, "photo.jpg")
    os.mkfifo(folder / "ImageSets/Main/pipe.txt")
    with pytest.raises(DatasetError, match="not a regular file"):
        read_image_set(folder, "pipe", {"photo"})
    (folder / "Annotations/photo.xml").unlink()
    os.mkfifo(folder / "Annotations/photo.xml")
    with pytest.raises(DatasetError, match=r"photo\.xml: not a regular file"):
        read(folder, "photo")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names, or change them")
def test_names_on_disk_that_are_no_text(folder):
    add_image(folder, "photo.jpg")
    (folder / "JPEGImages" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    (folder / "Annotations" / os.fsdecode(b"caf\xe9.xml")).write_bytes(b"")
    assert read(folder, "photo") == [("photo", "photo.jpg")]


@pytest.mark.parametrize(
    "number", ["1_0", "١", "５", "inf", "-inf", "nan", "1e400", "9" * 5000, "0x10", "1,5", "1 2", "", "0" * 10**6]
)
def test_what_is_no_decimal_number_drops_the_box(folder, number):
    add_image(folder, "a.jpg")
    xml = f"<annotation>{OBJECT.format(number)}{OBJECT.format(' 2.5 ')}</annotation>"
    (folder / "Annotations/a.xml").write_text(xml, encoding="utf-8")
    faults = Faults()
    (folder / "ImageSets/Main/x.txt").write_text("a")
    (record,) = read_voc(voc_source(folder, None, "x"), folder, ClassMap.to(CLASSES), faults)
    assert record.boxes.tolist() == [[1.5, 0, 9, 9]]
    assert [note.kind for note in faults.notes] == ["text for a number, dropped"] and len(faults.notes[0].message) < 400


@pytest.mark.parametrize("size", ["1_2", "１２", "inf", "1e400", "9" * 5000, "12.5", "-12", "", "twelve", "1e300", str(2**40)])
def test_a_size_that_is_none_is_the_images(folder, size):
    add_image(folder, "a.jpg")
    xml = f"<annotation><size><width>{size}</width><height>10</height></size>{OBJECT.format(2)}</annotation>"
    (folder / "Annotations/a.xml").write_text(xml, encoding="utf-8")
    (folder / "ImageSets/Main/x.txt").write_text("a")
    faults = Faults()
    (record,) = read_voc(voc_source(folder, None, "x"), folder, ClassMap.to(CLASSES), faults)
    assert record.size_hw == (10, 12) and [note.kind for note in faults.notes] == [
        "<size> without two numbers, taken from the image"
    ]


@pytest.mark.parametrize("tag", ["<difficult/>", "<difficult></difficult>", "<difficult> \n</difficult>", ""])
def test_strict_takes_an_empty_difficult_for_none(folder, tag):
    add_image(folder, "a.jpg")
    xml = f"<annotation>{OBJECT.format(2).replace('</name>', '</name>' + tag)}</annotation>"
    (folder / "Annotations/a.xml").write_text(xml)
    assert read(folder, "a", strict=True) == [("a", "a.jpg")]
    assert read_devkit(folder, "x").records[0].difficult.tolist() == [False]


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(12))
HOSTILE_XML = {
    "billion laughs": f"<!DOCTYPE annotation [{LAUGHS}]><annotation>&l11;</annotation>".encode(),
    "billion laughs, utf-16": f"<!DOCTYPE annotation [{LAUGHS}]><annotation>&l11;</annotation>".encode("utf-16"),
    "quadratic": b'<!DOCTYPE a [<!ENTITY l "' + b"x" * 10**6 + b'">]><annotation>' + b"&l;" * 10**5 + b"</annotation>",
    "external": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    "external parameter": b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x"> %x;]><annotation/>',
    "unknown entity": b"<annotation>&nbsp;</annotation>",
    "empty": b"",
    "zeros": bytes(1000),
    "too large": b"<annotation>" + b" " * MAX_XML_BYTES + b"</annotation>",
    "one long token": b"<annotation a='" + b"x" * (MAX_XML_BYTES - 100),
    "cut in the middle": b"<annotation><object><name>cat</na",
    "control character": b"<annotation><object><name>c\x01t</name></object></annotation>",
    "unknown encoding": b'<?xml version="1.0" encoding="klingon"?><annotation/>',
    "slow encoding": b'<?xml version="1.0" encoding="punycode"?><annotation/>',
    "wrong encoding": b'<?xml version="1.0" encoding="gbk"?><annotation>\xff\xff</annotation>',
    "not utf-8": b"<annotation>\xff</annotation>",
    "escape sequence": "<\u202e/>".encode(),
    "another root": b"<" + b"y" * 10**5 + b"/>",
}


@pytest.mark.parametrize("content", HOSTILE_XML.values(), ids=HOSTILE_XML)
def test_hostile_xml_is_one_line(tmp_path, content):
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.xml") as caught:
        parse_xml(tmp_path / "a.xml")
    assert len(str(caught.value)) < 500 and str(caught.value).isprintable() and str(caught.value).count("a.xml") == 1


def test_deep_nesting_neither_hangs_nor_crashes(tmp_path):
    """In a process of its own: it would not be the first parser that such a file crashes."""
    path = tmp_path / "deep.xml"
    path.write_bytes(b"<annotation>" + b"<a>" * 3 * 10**5 + b"</a>" * 3 * 10**5 + b"</annotation>")
    script = "import sys; from pathlib import Path; from detection.data.voc_xml import parse_xml; parse_xml(Path(sys.argv[1]))"
    assert subprocess.run([sys.executable, "-c", script, str(path)], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1251", "gbk", "GB2312", "big5", "Shift_JIS", "euc-kr"]
)
def test_other_encodings_work_where_they_are_declared(tmp_path, encoding):
    name = {"latin-1": "é", "cp1251": "кот", "euc-kr": "고양이"}.get(encoding, "中")
    declared = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{declared}"?>\n<annotation><object><name>{name}</name></object></annotation>'
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert parse_xml(tmp_path / "a.xml").findtext("object/name") == name


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_a_byte_order_mark_says_more_than_a_declaration(tmp_path, mark):
    text = '<?xml version="1.0" encoding="utf-8"?><annotation><object><name>é中</name></object></annotation>'
    (tmp_path / "a.xml").write_bytes(mark + text.encode("utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"))
    assert parse_xml(tmp_path / "a.xml").findtext("object/name") == "é中"


def test_stems_in_other_case_or_unicode_form_are_found_where_only_one_is_alike(folder):
    composed, decomposed = (unicodedata.normalize(form, "épée") for form in ("NFC", "NFD"))
    add_image(folder, "IMG_1.JPG")
    add_image(folder, f"{composed}.jpg")
    (folder / "Annotations/IMG_1.xml").rename(folder / "Annotations/Img_1.xml")
    (folder / "ImageSets/Main/x.txt").write_text(f"img_1\n{decomposed}\n", encoding="utf-8")
    faults = Faults()
    records = read_voc(voc_source(folder, None, "x"), folder, ClassMap.to(CLASSES), faults)
    assert [(record.image_id, record.file.name) for record in records] == [
        ("img_1", "IMG_1.JPG"),
        (decomposed, f"{composed}.jpg"),
    ]
    assert len(records[0].boxes) == 1 and "2 images are named in other case or another Unicode form" in faults.information[0]
    add_image(folder, "img_1.png")
    assert read(folder, "img_1")[0][1] == "img_1.png"
    with pytest.raises(DatasetError, match="no image of 'iMG_1'"):
        read(folder, "iMG_1")


def test_the_image_of_an_unknown_stem(folder):
    with pytest.raises(DatasetError, match="no image of 'x'"):
        find_image(open_folder(folder, None, ClassMap.to(CLASSES)), read_split_of(folder, "x"), "x.jpg")


def read_split_of(folder, line):
    (folder / "ImageSets/Main/x.txt").write_text(line)
    return read_image_set(folder, "x", ())[0]


def test_labels_without_images_name_them(folder):
    """What `resdet predict` and `import --images none` write: no JPEGImages, but paths."""
    add_image(folder, "a.jpg")
    (folder / "JPEGImages").rename(folder / "pictures")
    annotation = folder / "Annotations/a.xml"
    text = annotation.read_text(encoding="utf-8")
    for path in (folder / "pictures/a.jpg", "../pictures/a.jpg"):
        annotation.write_text(text.replace("<annotation>", f"<annotation><path>{path}</path>"), encoding="utf-8")
        assert read(folder, "a") == [("a", "a.jpg")]
    for path, told in (
        ("", "annotation has no <path>"),
        ("<path>/no/a.jpg</path>", "<path> '/no/a.jpg' of its annotation"),
        ("<path>.</path>", "none"),
    ):
        annotation.write_text(text.replace("<annotation>", f"<annotation>{path}"), encoding="utf-8")
        with pytest.raises(MissingImageError, match=f"no image of 'a' in .*JPEGImages, and .*{told}.*: put the images"):
            read(folder, "a")
