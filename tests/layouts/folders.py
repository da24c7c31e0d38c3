"""Folders of images, with links, litter, masks, and names of any kind."""

from pathlib import Path

from layouts.base import WNIDS, Truth, class_table, csv, layout, picture, put, put_pictures


@layout
def flat_folder_without_labels(folder: Path) -> Truth:
    return Truth(put_pictures(folder, ["a.jpg", "b.jpeg", "c.JPG"]), packed=True)


@layout
def flat_folder_with_a_label_file(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg", "b.jpg", "c.jpg"])
    put(folder, {"labels.csv": csv("filename,class_index", [("a.jpg", 4), ("b.jpg", 0), ("c.jpg", 9)])})
    return Truth(pictures, {"a.jpg": 4, "b.jpg": 0, "c.jpg": 9}, packed=True)


@layout
def flat_folder_with_boxes(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg", "b.jpg"])
    rows = [("a.jpg", 1, 2, 30, 31.5), ("a.jpg", 3, 3, 9, 9)]
    put(folder, {"boxes.csv": csv("filename,x0,y0,x1,y1", rows)})
    return Truth(pictures, boxes={"a.jpg": ((1, 2, 30, 31.5), (3, 3, 9, 9))}, packed=True)


@layout
def class_folders_by_wordnet_id(folder: Path) -> Truth:
    pictures = put_pictures(folder, [f"{WNIDS[i]}/{WNIDS[i]}_{n}.JPEG" for i in (2, 5, 7) for n in (1, 2)])
    labels = {key: WNIDS.index(key.partition("/")[0]) for key in pictures}
    return Truth(pictures, labels, data=class_table(folder), packed=True)


@layout
def class_folders_by_name(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["great shark/1.jpg", "goldfish/1.jpg", "goldfish/2.jpg"])
    labels = {"great shark/1.jpg": 2, "goldfish/1.jpg": 1, "goldfish/2.jpg": 1}
    return Truth(pictures, labels, data=class_table(folder), packed=True)


@layout
def class_folders_that_are_links(folder: Path) -> Truth:
    """A subset that was made of links to the folders of a larger dataset."""
    real = folder.parent / "imagenet"
    names = [f"{WNIDS[i]}/{n}.jpg" for i in (1, 8) for n in (1, 2)]
    pictures = put_pictures(real, names)
    folder.mkdir()
    for i in (1, 8):
        (folder / WNIDS[i]).symlink_to(real / WNIDS[i])
    labels = {key: WNIDS.index(key.partition("/")[0]) for key in pictures}
    return Truth(pictures, labels, data=class_table(folder), packed=True)


@layout
def links_that_lead_back(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg", "d/b.jpg"])
    (folder / "d" / "all").symlink_to(folder)
    (folder / "d" / "self").symlink_to("self")
    return Truth(pictures | {}, failed={"d/self": "unreadable"})


@layout
def links_to_images_one_of_them_broken(folder: Path) -> Truth:
    put_pictures(folder.parent / "pool", ["x1.jpg", "x2.jpg"])
    folder.mkdir()
    for name, target in (("a.jpg", "x1.jpg"), ("b.jpg", "x2.jpg"), ("c.jpg", "gone.jpg")):
        (folder / name).symlink_to(folder.parent / "pool" / target)
    return Truth({"a.jpg": 0, "b.jpg": 1}, failed={"c.jpg": "unreadable"})


@layout
def litter_of_three_systems(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a/1.jpg", "a/2.jpg"])
    litter = ("Thumbs.db", "a/desktop.ini", ".DS_Store", "a/._1.jpg", "__MACOSX/a/._2.jpg", "a/.1.jpg.swp", "LICENSE")
    put(folder, dict.fromkeys(litter, b"\0litter"))
    return Truth(pictures, packed=True)


@layout
def notes_and_checksums(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg", "b.jpg"])
    names = (
        "README.md",
        "MD5SUMS",
        "a.jpg.sha256",
        "meta.jsonl",
        "info.json",
        "list.txt",
        "a.xml",
        "train.tsv",
        "x.yaml",
    )
    put(folder, dict.fromkeys(names, b"no image"))
    return Truth(pictures, packed=True)


@layout
def the_archive_it_came_in(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["images/a.jpg", "images/b.jpg"])
    put(folder, {"archive.zip": b"PK\x03\x04", "images.tar.gz": b"\x1f\x8b"})
    return Truth(pictures, packed=True)


@layout
def notebook_checkpoints(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg"])
    put(folder, {".ipynb_checkpoints/a-checkpoint.jpg": picture(7), ".git/objects/ab": b"x"})
    return Truth(pictures, packed=True)


@layout
def pascal_voc_images(folder: Path) -> Truth:
    put(folder, {f"VOC2012/JPEGImages/{name}.jpg": picture(n) for n, name in enumerate(("2007_1", "2007_2"))})
    for name in ("SegmentationClass", "SegmentationObject"):
        put(folder, {f"VOC2012/{name}/2007_1.png": picture(9, "PNG")})
    put(folder, {"VOC2012/ImageSets/Main/train.txt": b"2007_1\n"})
    return Truth({"VOC2012/JPEGImages/2007_1.jpg": 0, "VOC2012/JPEGImages/2007_2.jpg": 1}, packed=True)


@layout
def images_and_masks(folder: Path) -> Truth:
    put(folder, {"images/1.jpg": picture(0), "images/2.jpg": picture(1), "masks/1.png": picture(2), "masks/2.png": b""})
    return Truth({"images/1.jpg": 0, "images/2.jpg": 1})


@layout
def masks_beside_their_images(folder: Path) -> Truth:
    put(folder, {"1.jpg": picture(0), "1_mask.png": picture(1, "PNG"), "2.jpg": picture(2), "2_mask.png": b""})
    return Truth({"1.jpg": 0, "2.jpg": 2}, data={"members": {"ignore": ["*_mask.png"]}})


@layout
def names_with_dots(folder: Path) -> Truth:
    names = ["scan.1.jpg", "scan.2.jpg", "scan.10.jpg", "scan.jpg", "IMG.2024.01.02.jpg"]
    pictures = put_pictures(folder, names)
    labels = {name: i for i, name in enumerate(names)}
    put(folder, {"labels.csv": csv("filename,class_index", labels.items())})
    return Truth(pictures, labels, packed=True)


@layout
def names_of_all_kinds(folder: Path) -> Truth:
    names = [
        "with space.jpg",
        "comma,here.jpg",
        "süß.jpg",
        "🦊.jpg",
        "(1).jpg",
        "a'b.jpg",
        "100%.jpg",
        "-x.jpg",
        "#.jpg",
    ]
    return Truth(put_pictures(folder, names), packed=True)


@layout
def names_without_suffix(folder: Path) -> Truth:
    return Truth(put_pictures(folder, ["0a1b2c", "9f8e7d"]), packed=True)


@layout
def the_same_base_name_in_two_folders(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["x/1.jpg", "y/1.jpg"])
    put(folder, {"labels.csv": csv("filename,class_index", [("x/1.jpg", 3), ("y/1.jpg", 4)])})
    return Truth(pictures, {"x/1.jpg": 3, "y/1.jpg": 4}, packed=True)


@layout
def one_split_of_a_folder(folder: Path) -> Truth:
    put(folder, {f"train/{WNIDS[1]}/{n}.jpg": picture(5 + n) for n in range(2)})
    put(folder, {f"val/{WNIDS[i]}/x.jpg": picture(i) for i in (1, 3)})
    labels = {f"{WNIDS[i]}/x.jpg": i for i in (1, 3)}
    return Truth(dict(labels), labels, data={"split": "val", **class_table(folder)})


@layout
def pointers_of_git_lfs(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg"])
    put(folder, {"b.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"})
    return Truth(pictures, failed={"b.jpg": "format"})


@layout
def images_that_are_damaged(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg"])
    put(folder, {"b.jpg": b"", "c.jpg": b"<html>404</html>", "d.jpg": picture(3)[:500]})
    return Truth(pictures, failed={"b.jpg": "format", "c.jpg": "format", "d.jpg": "corrupt"})


@layout
def damaged_images_with_a_grey_rest(folder: Path) -> Truth:
    pictures = put_pictures(folder, ["a.jpg"])
    put(folder, {"d.jpg": picture(3)[:900]})
    return Truth(pictures | {"d.jpg": 3}, data={"truncated": "grey"})


def _folder_of(folder: Path, *names: str) -> None:
    put(folder, dict.fromkeys((*names, "README.md"), b"x"))


@layout
def folder_of_tfrecords(folder: Path) -> Truth:
    _folder_of(folder, "train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord")
    return Truth(refused="2 TFRecord files")


@layout
def folder_of_mosaic_shards(folder: Path) -> Truth:
    _folder_of(folder, "index.json", "shard.00000.mds.zstd")
    return Truth(refused="1 MDS file .*StreamingDataset")


@layout
def folder_of_zips(folder: Path) -> Truth:
    _folder_of(folder, "part1.zip", "part2.zip")
    return Truth(refused="2 zip files .*unpack")


@layout
def tars_in_sub_folders(folder: Path) -> Truth:
    _folder_of(folder, "a/0.tar", "b/0.tar")
    return Truth(refused=r"2 tar files .*\*\*/\*\.tar")


@layout
def folder_of_texts(folder: Path) -> Truth:
    _folder_of(folder, "labels.csv")
    return Truth(refused="contains no image, tar or Parquet file")
