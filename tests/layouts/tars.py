"""Tars: webdataset, and tars that people make with `tar`."""

from pathlib import Path

from layouts.base import WNIDS, Truth, as_json, class_table, csv, layout, picture, put, tar


@layout
def webdataset_with_labels(folder: Path) -> Truth:
    tar(folder / "0.tar", [(f"{n}.{s}", d) for n in range(3) for s, d in (("cls", b"%d" % n), ("jpg", picture(n)))])
    return Truth({str(n): n for n in range(3)}, {str(n): n for n in range(3)})


@layout
def webdataset_with_names_and_boxes(folder: Path) -> Truth:
    fields = {"label": WNIDS[6], "boxes": [[1, 2, 20, 30]], "caption": "a text"}
    tar(folder / "0.tar", [("x/a.jpg", picture(0)), ("x/a.json", as_json(fields)), ("x/b.png", picture(1, "PNG"))])
    return Truth({"x/a": 0, "x/b": 1}, {"x/a": 6}, {"x/a": ((1, 2, 20, 30),)}, data=class_table(folder))


@layout
def tar_of_a_folder(folder: Path) -> Truth:
    """As `tar cf x.tar images` writes it: folders, `./` before names, any order."""
    names = ("b.jpg", "a.jpg", "c.jpeg")
    tar(folder / "x.tar", [(f"./images/{name}", picture(n)) for n, name in enumerate(names)])
    return Truth({"images/b": 0, "images/a": 1, "images/c": 2})


@layout
def tar_with_litter(folder: Path) -> Truth:
    """As `tar` writes it on a Mac."""
    litter = [("./._a.jpg", b"x"), ("./.DS_Store", b"x"), ("./README.md", b"x"), ("./x/Thumbs.db", b"x")]
    tar(folder / "x.tar", [*litter, ("./a.jpg", picture(0)), ("./x/._b.jpg", b"x"), ("./x/b.jpg", picture(1))])
    return Truth({"a": 0, "x/b": 1})


@layout
def tar_of_names_with_dots(folder: Path) -> Truth:
    names = ["scan.2.jpg", "other.jpg", "scan.1.jpg", "scan.10.jpg", "scan.jpg"]
    tar(folder / "x.tar", [(name, picture(n)) for n, name in enumerate(names)])
    return Truth({name.removesuffix(".jpg"): n for n, name in enumerate(names)})


@layout
def tar_of_names_with_dots_and_labels(folder: Path) -> Truth:
    members = [(f"p{n}.v.{i}.{s}", d) for n in (0, 1) for i in (0, 1) for s, d in _labelled(2 * n + i)]
    tar(folder / "x.tar", members)
    keys = {f"p{n}.v.{i}": 2 * n + i for n in (0, 1) for i in (0, 1)}
    return Truth(keys, keys)


def _labelled(number: int) -> list[tuple[str, bytes]]:
    return [("cls", b"%d" % number), ("jpg", picture(number))]


@layout
def tar_of_scientific_names(folder: Path) -> Truth:
    names = [f"1.2.840.113619.{n}.3.jpg" for n in range(4)]
    tar(folder / "x.tar", [(name, picture(n)) for n, name in enumerate(names)])
    return Truth({name.removesuffix(".jpg"): n for n, name in enumerate(names)})


@layout
def tar_of_inputs_and_outputs(folder: Path) -> Truth:
    members = [
        (f"{n}.{s}", d)
        for n in range(3)
        for s, d in (("input.jpg", picture(n)), ("mask.png", picture(9, "PNG")), ("output.cls", b"%d" % n))
    ]
    tar(folder / "x.tar", members)
    rules = {"image": "input.jpg", "label": "output.cls", "ignore": ["*.mask.png"]}
    return Truth({str(n): n for n in range(3)}, {str(n): n for n in range(3)}, data={"members": rules})


@layout
def tar_of_images_and_their_masks(folder: Path) -> Truth:
    members = [(f"{n}.{s}", d) for n in range(3) for s, d in (("jpg", picture(n)), ("png", picture(9, "PNG")))]
    tar(folder / "x.tar", members)
    return Truth({str(n): n for n in range(3)}, data={"members": {"ignore": ["*.png"]}})


@layout
def tar_of_images_and_masks_unsaid(folder: Path) -> Truth:
    tar(folder / "x.tar", [("0.jpg", picture(0)), ("0.png", picture(1, "PNG")), ("1.jpg", picture(2))])
    return Truth({"1": 2}, failed={"0": "ambiguous_image"})


@layout
def compressed_tars(folder: Path) -> Truth:
    tar(folder / "0.tar.gz", [("a.jpg", picture(0)), ("a.cls", b"3")], "w:gz")
    tar(folder / "1.tgz", [("b.jpg", picture(1)), ("b.cls", b"4")], "w:gz")
    return Truth({"a": 0, "b": 1}, {"a": 3, "b": 4})


@layout
def compressed_tar_named_tar(folder: Path) -> Truth:
    tar(folder / "0.tar", [("a.jpg", picture(0))], "w:gz")
    return Truth(refused="gzip data, not a tar .*tar.gz")


@layout
def tars_that_git_lfs_did_not_fetch(folder: Path) -> Truth:
    put(folder, {"0.tar": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"})
    return Truth(refused="git-lfs pointer")


@layout
def tar_of_tars(folder: Path) -> Truth:
    """As ILSVRC2012_img_train.tar: one tar for each class."""
    for wnid in WNIDS[:2]:
        tar(folder.parent / f"{wnid}.tar", [(f"{wnid}_1.JPEG", picture(1))])
    inner = [(f"{wnid}.tar", (folder.parent / f"{wnid}.tar").read_bytes()) for wnid in WNIDS[:2]]
    tar(folder / "train.tar", inner)
    return Truth(refused="holds archives")


@layout
def zip_named_tar(folder: Path) -> Truth:
    put(folder, {"0.tar": b"PK\x03\x04" + bytes(600)})
    return Truth(refused="is a zip archive")


@layout
def tars_with_a_label_file(folder: Path) -> Truth:
    tar(folder / "0.tar", [(f"val_{n}.JPEG", picture(n)) for n in range(3)])
    rows = [(f"val_{n}.JPEG", 9 - n) for n in range(3)]
    (folder.parent / "labels.csv").write_bytes(csv("filename,class_index", rows))
    labels = {f"val_{n}": 9 - n for n in range(3)}
    return Truth({f"val_{n}": n for n in range(3)}, labels, data={"labels": str(folder.parent / "labels.csv")})
