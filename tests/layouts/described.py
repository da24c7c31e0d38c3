"""Layouts whose labels come from manifests, annotations, or folders that may not be classes."""

from pathlib import Path

from layouts.base import NAMES, WNIDS, Truth, as_json, class_table, csv, layout, picture, put, put_pictures

BOXES = {"a.jpg": ((5.0, 6.0, 25.0, 30.0),)}


@layout
def kaggle_list(folder: Path) -> Truth:
    names = ["images/1.jpg", "images/2.jpg", "images/3.jpg"]
    pictures = put_pictures(folder, names)
    put(folder, {"train.csv": csv("image_id,label", [(name, n) for n, name in enumerate(names)])})
    return Truth(pictures, {name: n for n, name in enumerate(names)}, data={"shards": None, "manifest": "{}/train.csv"})


@layout
def list_with_semicolons_and_names(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["1.jpg", "2.jpg"])
    put(folder, {"list.csv": csv("file;class_name", [("1.jpg", NAMES[2]), ("2.jpg", NAMES[0])], ";")})
    data = {"shards": None, "manifest": "{}/list.csv", **class_table(folder)}
    return Truth(pictures, {"1.jpg": 2, "2.jpg": 0}, data=data)


@layout
def list_with_tabs_without_header(folder: Path) -> Truth:
    """As `val_map.txt` of ImageNet in many repositories."""
    pictures = put_pictures(folder, ["1.jpg", "2.jpg"])
    put(folder, {"map.tsv": csv("", [("1.jpg", 4), ("2.jpg", 6)], "\t")})
    data = {"shards": None, "manifest": "{}/map.tsv", "columns": ["path", "label"]}
    return Truth(pictures, {"1.jpg": 4, "2.jpg": 6}, data=data)


@layout
def list_of_absolute_paths(folder: Path) -> Truth:
    put_pictures(folder.parent / "pool", ["1.jpg", "2.jpg"])
    rows = [(folder.parent / "pool" / f"{n}.jpg", n) for n in (1, 2)]
    put(folder, {"list.csv": csv("path,label", rows)})
    keys = ["1.jpg", "2.jpg"]  # below the deepest folder of all images
    data = {"shards": None, "manifest": "{}/list.csv"}
    return Truth(dict(zip(keys, (0, 1), strict=True)), dict(zip(keys, (1, 2), strict=True)), data=data)


@layout
def list_in_utf16(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["ä.jpg"])
    put(folder, {"list.csv": "filename,label\nä.jpg,3\n".encode("utf-16")})
    return Truth(pictures, {"ä.jpg": 3}, data={"shards": None, "manifest": "{}/list.csv"})


@layout
def json_lines(folder: Path) -> Truth:
    """As `metadata.jsonl` of an image folder of the hub."""
    pictures = put_pictures(folder, ["1.jpg", "2.jpg"])
    rows = [{"file_name": f"{n}.jpg", "label": n} for n in (1, 2)]
    put(folder, {"metadata.jsonl": b"".join(as_json(row) + b"\n" for row in rows)})
    return Truth(pictures, {"1.jpg": 1, "2.jpg": 2}, data={"shards": None, "manifest": "{}/metadata.jsonl"})


@layout
def coco(folder: Path) -> Truth:
    pictures = put_pictures(folder / "images", ["a.jpg", "b.jpg"])
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "categories": [{"id": 90, "name": NAMES[3]}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 90, "bbox": [5, 6, 20, 24]}],
    }
    put(folder, {"instances.json": as_json(content)})
    data = {"shards": "{}/images", "boxes": "{}/instances.json", **class_table(folder)}
    return Truth(pictures, {"a.jpg": 3}, BOXES, data=data)


@layout
def boxes_by_width_and_height(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg", "b.jpg"])
    put(folder, {"boxes.csv": csv("filename,x,y,width,height", [("a.jpg", 5, 6, 20, 24)])})
    return Truth(pictures, boxes=BOXES, data={"boxes_format": "xywh"})


@layout
def yolo(folder: Path) -> Truth:
    pictures = put_pictures(folder / "images", ["a.jpg", "b.jpg"])
    line = f"3 {15 / 40} {18 / 36} {20 / 40} {18 / 36}\n".encode()  # shares that binary numbers hold exactly
    put(folder, {"labels/a.txt": line, "classes.txt": "\n".join(NAMES).encode()})
    data = {"shards": "{}/images", "boxes": "{}/labels", **class_table(folder)}
    return Truth(pictures, {"a.jpg": 3}, {"a.jpg": ((5.0, 9.0, 25.0, 27.0),)}, data=data)


@layout
def pascal_voc_boxes(folder: Path) -> Truth:
    put(folder, {"JPEGImages/a.jpg": picture(0), "JPEGImages/b.jpg": picture(1)})
    xml = f"""<annotation><object><name>{NAMES[3]}</name><difficult>0</difficult><bndbox><xmin>5</xmin><ymin>6</ymin>
    <xmax>25</xmax><ymax>30</ymax></bndbox></object></annotation>"""
    put(folder, {"Annotations/a.xml": xml.encode()})
    boxes = {"JPEGImages/a.jpg": BOXES["a.jpg"]}
    pictures = {"JPEGImages/a.jpg": 0, "JPEGImages/b.jpg": 1}
    data = {"boxes": "{}/Annotations", **class_table(folder)}
    return Truth(pictures, {"JPEGImages/a.jpg": 3}, boxes, data=data)


@layout
def labels_beat_folders(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["0/a.jpg", "1/b.jpg"])
    put(folder, {"labels.csv": csv("filename,class_index", [("a.jpg", 7), ("b.jpg", 8)])})
    return Truth(pictures, {"0/a.jpg": 7, "1/b.jpg": 8}, packed=True)


@layout
def parts_of_an_archive(folder: Path) -> Truth:
    """As NIH chest X-rays: `images_001/`, `images_002/`, which are no classes."""
    return Truth(put_pictures(folder, ["images_001/a.jpg", "images_002/b.jpg"]), packed=True)


@layout
def splits_that_are_no_classes(folder: Path) -> Truth:
    return Truth(put_pictures(folder, ["train/a.jpg", "val/b.jpg"]), packed=True)


@layout
def a_subset_of_imagenet(folder: Path) -> Truth:
    names = ["n01968897/a.jpg", "n02087394/b.jpg", "n01440764/c.jpg"]
    pictures = put_pictures(folder, names)
    labels = {"n01968897/a.jpg": 117, "n02087394/b.jpg": 159, "n01440764/c.jpg": 0}
    return Truth(pictures, labels, data={"classes": "imagenet-1k"})


@layout
def folders_numbered_from_one(folder: Path) -> Truth:
    return Truth(put_pictures(folder, [f"{n}/a.jpg" for n in range(1, 6)]), packed=True)


@layout
def a_class_that_is_missing(folder: Path) -> Truth:
    names = [f"{WNIDS[i]}/a.jpg" for i in range(10) if i != 4]
    return Truth(put_pictures(folder, names), packed=True)


@layout
def label_file_of_other_images(folder: Path) -> Truth:
    put_pictures(folder, ["a.jpg", "b.jpg"])
    put(folder, {"labels.csv": csv("filename,class_index", [("x.jpg", 1), ("y.jpg", 2)])})
    return Truth(refused="matched|match")


@layout
def several_labels_in_a_cell(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg"])
    put(folder, {"list.csv": csv("Image Index,Finding Labels", [("a.jpg", f"{NAMES[2]}|{NAMES[5]}")])})
    columns = {"path": "Image Index", "labels": "Finding Labels"}
    data = {
        "shards": None,
        "manifest": "{}/list.csv",
        "columns": columns,
        "label_separator": "|",
        **class_table(folder),
    }
    return Truth(pictures, data=data)


@layout
def several_labels_without_their_separator(folder: Path) -> Truth:
    put_pictures(folder, ["a.jpg"])
    put(folder, {"list.csv": csv("Image Index,Finding Labels", [("a.jpg", f"{NAMES[2]}|{NAMES[5]}")])})
    data = {"shards": None, "manifest": "{}/list.csv", **class_table(folder)}
    return Truth(data=data, refused="label_separator")


@layout
def a_column_for_each_class(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg", "b.jpg"])
    put(folder, {"list.csv": csv(f"file,{','.join(NAMES)}", [("a.jpg", *"0010000000"), ("b.jpg", *"0000000000")])})
    data = {"shards": None, "manifest": "{}/list.csv", "columns": {"labels": list(NAMES)}}
    return Truth(pictures, {"a.jpg": 2}, data=data)


@layout
def list_with_corners_read_as_sizes(folder: Path) -> Truth:
    """COCO's corner and size under headers that do not say so."""
    put_pictures(folder, ["a.jpg", "b.jpg"])
    rows = [("a.jpg", 30, 20, 5, 10), ("b.jpg", 5, 6, 20, 24)]
    put(folder, {"list.csv": csv("file,x0,y0,x1,y1", rows)})
    return Truth(data={"shards": None, "manifest": "{}/list.csv"}, refused="boxes_format")
