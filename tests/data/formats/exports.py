"""The pictures of tests/data/pictures.py as labelling programs export them, file for file and key for key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.data.pictures import PICTURES, Picture, Thing, write_picture

PLAIN = tuple(Picture(each.number, each.size_hw, tuple(Thing(t.name, t.box) for t in each.things)) for each in PICTURES)
"""The pictures without difficult objects, which most programs know nothing of."""


def write_images(folder: Path, pictures: Sequence[Picture] = PLAIN, prefix: str = "") -> None:
    """The pictures as PREFIX000001.jpg and so on."""
    for picture in pictures:
        write_picture(folder / f"{prefix}{picture.stem}.jpg", picture)


def dump(path: Path, value: Any) -> None:
    """Plain data as a JSON file in a folder that may have to be made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4))


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Rows as CSV, in a folder that may have to be made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


def cvat_image(picture: Picture, number: int, subset: str = "") -> str:
    """An <image> of "CVAT for images 1.1"."""
    height, width = picture.size_hw
    boxes = "".join(
        f'    <box label="{thing.name}" source="manual" occluded="0" xtl="{thing.box[0]:.2f}" ytl="{thing.box[1]:.2f}" '
        f'xbr="{thing.box[2]:.2f}" ybr="{thing.box[3]:.2f}" z_order="0">\n'
        f'      <attribute name="colour">red</attribute>\n    </box>\n'
        for thing in picture.things
    )
    part = f' subset="{subset}" task_id="39"' if subset else ""
    return f'  <image id="{number}" name="{picture.stem}.jpg"{part} width="{width}" height="{height}">\n{boxes}  </image>\n'


def cvat_xml(body: str, meta: str = "<task><id>5</id><name>pets</name><mode>annotation</mode></task>") -> str:
    """An annotations.xml."""
    head = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    {meta}\n'
    return f"{head}    <dumped>2024-01-17 01:38:22.055780+00:00</dumped>\n  </meta>\n{body}</annotations>\n"


def write_cvat(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """A task of CVAT, exported with its images."""
    write_images(folder / "images", pictures)
    body = "".join(cvat_image(picture, number) for number, picture in enumerate(pictures))
    (folder / "annotations.xml").write_text(cvat_xml(body))


def write_cvat_video(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """A video of CVAT, exported with its frames: an object is seen in one frame, and is outside of the next."""
    write_images(folder / "images", pictures, "frame_")
    things = [(picture, thing) for picture in pictures for thing in picture.things]
    tracks = []
    for number, (picture, thing) in enumerate(things):
        x1, y1, x2, y2 = thing.box
        box = f'keyframe="1" xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}" z_order="0"></box>'
        boxes = "".join(f'<box frame="{picture.number + after}" outside="{after}" occluded="0" {box}' for after in (0, 1))
        tracks.append(f'  <track id="{number}" label="{thing.name}" source="manual">{boxes}</track>\n')
    (folder / "annotations.xml").write_text(cvat_xml("".join(tracks), "<task><mode>interpolation</mode></task>"))


def studio_result(thing: Thing, size_hw: tuple[int, int], number: int) -> dict[str, Any]:
    """A rectangle of Label Studio."""
    (x1, y1, x2, y2), (height, width) = thing.box, size_hw
    percents = {"x": x1 / width, "y": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
    return {
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**{key: 100 * value for key, value in percents.items()}, "rotation": 0, "rectanglelabels": [thing.name]},
        "id": f"C7oHaRDV{number}",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "origin": "manual",
    }


def studio_task(picture: Picture, **annotation: Any) -> dict[str, Any]:
    """A task of Label Studio with one annotation."""
    results = [studio_result(thing, picture.size_hw, number) for number, thing in enumerate(picture.things)]
    own = {"id": picture.number, "completed_by": 1, "result": results, "was_cancelled": False, "ground_truth": False}
    dates = {"created_at": "2024-01-30T02:40:43.893565Z", "updated_at": "2024-01-30T02:40:43.893578Z", "lead_time": 8.65}
    return {
        "id": picture.number,
        "annotations": [{**own, **dates, **annotation}],
        "file_upload": f"ab12cd3{picture.number}-{picture.stem}.jpg",
        "drafts": [],
        "predictions": [],
        "data": {"image": f"/data/upload/1/ab12cd3{picture.number}-{picture.stem}.jpg"},
        "meta": {},
        "inner_id": picture.number,
        "total_annotations": 1,
        "project": 1,
    }


def write_labelstudio(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """An export as JSON beside the images under the names that they had before they were uploaded."""
    write_images(folder / "images", pictures)
    dump(folder / "project-1-at-2024-01-30.json", [studio_task(picture) for picture in pictures])


def write_labelstudio_min(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """An export as JSON-MIN."""
    write_images(folder / "images", pictures)
    tasks = []
    for picture in pictures:
        results = [studio_result(thing, picture.size_hw, number) for number, thing in enumerate(picture.things)]
        sides = ("original_width", "original_height")
        labels = [{**result["value"], **{side: result[side] for side in sides}} for result in results]
        own = {"id": picture.number, "annotator": 1, "annotation_id": picture.number, "created_at": "2024-01-30T02:40:43Z"}
        task = {"image": f"/data/local-files/?d=pets/images/{picture.stem}.jpg", **own}
        tasks.append({**task, "label": labels} if labels else task)
    dump(folder / "project-1.json", tasks)


def vott_asset(picture: Picture) -> dict[str, Any]:
    """What VoTT knows of an image, as in its -asset.json."""
    height, width = picture.size_hw
    regions = []
    for number, thing in enumerate(picture.things):
        x1, y1, x2, y2 = thing.box
        corners = [{"x": x, "y": y} for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
        box = {"height": y2 - y1, "width": x2 - x1, "left": x1, "top": y1}
        regions.append(
            {"id": f"Yh2yWXaT{number}", "type": "RECTANGLE", "tags": [thing.name], "boundingBox": box, "points": corners}
        )
    path = f"file:C:/Users/me/My%20Pets/source/{picture.stem}.jpg"
    size = {"width": width, "height": height}
    asset = {"format": "jpg", "id": f"3cf00e{picture.number}", "name": f"{picture.stem}.jpg", "path": path, "size": size}
    return {"asset": {**asset, "state": 2 if regions else 1, "type": 1}, "regions": regions, "version": "2.2.0"}


def write_vott(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """A project of VoTT: the folder of the images, and the target with a file for each asset."""
    write_images(folder / "source", pictures)
    assets = [vott_asset(picture) for picture in pictures]
    for each in assets:
        dump(folder / "target" / f"{each['asset']['id']}-asset.json", each)
    dump(folder / "target" / "pets.vott", {"name": "pets", "assets": {each["asset"]["id"]: each["asset"] for each in assets}})


def write_vott_export(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """VoTT's export as JSON, with copies of the images beside it."""
    write_images(folder / "vott-json-export", pictures)
    assets = {each["asset"]["id"]: each for each in map(vott_asset, pictures)}
    tags = [{"name": "cat", "color": "#5db300"}, {"name": "dog", "color": "#e81123"}]
    project = {"name": "pets", "securityToken": "pets Token", "videoSettings": {"frameExtractionRate": 15}, "tags": tags}
    dump(folder / "vott-json-export" / "pets-export.json", {**project, "id": "0OPxbBiQE", "version": "2.2.0", "assets": assets})


def write_vott_csv(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """VoTT's export as CSV, which has no images without objects."""
    write_images(folder, pictures)
    rows: list[Sequence[object]] = [[f'"{name}"' for name in ("image", "xmin", "ymin", "xmax", "ymax", "label")]]
    rows += [[f'"{each.stem}.jpg"', *thing.box, f'"{thing.name}"'] for each in pictures for thing in each.things]
    write_table(folder / "pets-export.csv", rows)


def write_makesense(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """makesense.ai's table, without a header and without images that have no objects."""
    write_images(folder / "images", pictures)
    rows = []
    for each in pictures:
        for thing in each.things:
            x1, y1, x2, y2 = thing.box
            rows.append([thing.name, x1, y1, x2 - x1, y2 - y1, f"{each.stem}.jpg", each.size_hw[1], each.size_hw[0]])
    write_table(folder / "labels_pets_2024-01-30.csv", rows)


def via_region(thing: Thing) -> dict[str, Any]:
    """A rectangle of VIA."""
    x1, y1, x2, y2 = thing.box
    shape = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
    return {"shape_attributes": shape, "region_attributes": {"kind": thing.name}}


def via_images(folder: Path, pictures: Sequence[Picture], numbered: bool = False) -> dict[str, Any]:
    """The images of VIA by their keys, the file's name and its size in bytes; `numbered`: regions as in version 1."""
    images = {}
    for each in pictures:
        name = f"{each.stem}.jpg"
        size = (folder / name).stat().st_size
        regions = [via_region(thing) for thing in each.things]
        listed = {str(number): region for number, region in enumerate(regions)} if numbered else regions
        images[f"{name}{size}"] = {"filename": name, "size": size, "regions": listed, "file_attributes": {}}
    return images


def write_via_project(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """A project of VIA 2 beside the images."""
    write_images(folder, pictures)
    settings = {"ui": {}, "core": {"buffer_size": 18, "filepath": {}, "default_filepath": ""}, "project": {"name": "pets"}}
    attributes = {"region": {"kind": {"type": "dropdown", "description": "", "options": {"cat": "", "dog": ""}}}, "file": {}}
    images = via_images(folder, pictures)
    project = {"_via_settings": settings, "_via_img_metadata": images, "_via_attributes": attributes}
    dump(
        folder / "via_project_30Jan2024.json",
        {**project, "_via_data_format_version": "2.0.10", "_via_image_id_list": list(images)},
    )


def write_via_regions(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """The annotations of VIA 1 beside the images."""
    write_images(folder, pictures)
    dump(folder / "via_region_data.json", via_images(folder, pictures, numbered=True))


def write_via_csv(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """The annotations of VIA as CSV: JSON in its cells, and a row for an image without regions."""
    write_images(folder, pictures)
    rows: list[list[object]] = [
        [
            "filename",
            "file_size",
            "file_attributes",
            "region_count",
            "region_id",
            "region_shape_attributes",
            "region_attributes",
        ]
    ]
    for image in via_images(folder, pictures).values():
        own, count = [image["filename"], image["size"], '"{}"'], len(image["regions"])
        for number, region in enumerate(image["regions"]):
            cells = [json.dumps(region[key]).replace('"', '""') for key in ("shape_attributes", "region_attributes")]
            rows.append([*own, count, number, *(f'"{cell}"' for cell in cells)])
        rows += [] if count else [[*own, 0, 0, '"{}"', '"{}"']]
    write_table(folder / "via_export_csv.csv", rows)


def write_openimages(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """A part of Open Images: some images, and the tables of all."""
    write_images(folder / "train", pictures)
    codes = {"cat": "/m/01yrx", "dog": "/m/0bt9lr"}
    columns = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    rows: list[Sequence[object]] = [columns.split(","), ["ffff00", "xclick", "/m/01yrx", 1, 0.2, 1, 0.3, 0.5, 0, 0, 0, 0, 0]]
    for each in pictures:
        height, width = each.size_hw
        for thing in each.things:
            x1, y1, x2, y2 = thing.box
            box = (x1 / width, x2 / width, y1 / height, y2 / height)
            rows.append([each.stem, "xclick", codes[thing.name], 1, *box, 0, 0, int(thing.ignored), 0, 0])
    write_table(folder / "oidv6-train-annotations-bbox.csv", rows)
    write_table(folder / "class-descriptions-boxable.csv", [[code, name] for name, code in codes.items()])


def write_roboflow_csv(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """Roboflow's "TensorFlow object detection CSV"."""
    write_images(folder / "train", pictures)
    rows: list[Sequence[object]] = [["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]]
    for each in pictures:
        for thing in each.things:
            rows.append([f"{each.stem}.jpg", each.size_hw[1], each.size_hw[0], thing.name, *thing.box])
    write_table(folder / "train" / "_annotations.csv", rows)


def write_retinanet(folder: Path, pictures: Sequence[Picture] = PLAIN) -> None:
    """keras-retinanet's table, where an image without objects has empty cells, and its list of classes."""
    write_images(folder / "images", pictures)
    rows: list[Sequence[object]] = []
    for each in pictures:
        rows += [[f"images/{each.stem}.jpg", *thing.box, thing.name] for thing in each.things]
        rows += [] if each.things else [[f"images/{each.stem}.jpg", "", "", "", "", ""]]
    write_table(folder / "annotations.csv", rows)
    write_table(folder / "classes.csv", [["cat", 0], ["dog", 1]])


Write = Callable[[Path], None]

EXPORTS: Mapping[str, tuple[str, Write]] = {
    "CVAT": ("cvat", write_cvat),
    "CVAT video": ("cvat", write_cvat_video),
    "Label Studio JSON": ("labelstudio", write_labelstudio),
    "Label Studio JSON-MIN": ("labelstudio", write_labelstudio_min),
    "VoTT project": ("vott", write_vott),
    "VoTT JSON": ("vott", write_vott_export),
    "VoTT CSV": ("csv", write_vott_csv),
    "makesense CSV": ("makesense", write_makesense),
    "VIA 2 project": ("via", write_via_project),
    "VIA 1 JSON": ("via", write_via_regions),
    "VIA CSV": ("via", write_via_csv),
    "Open Images": ("openimages", write_openimages),
    "Roboflow CSV": ("csv", write_roboflow_csv),
    "RetinaNet CSV": ("csv", write_retinanet),
}
"""Each kind of export: the format that it is recognised as, and what writes it."""

ONLY_OBJECTS = ("VoTT CSV", "makesense CSV", "Open Images", "Roboflow CSV")
"""The kinds that do not list images without objects."""
