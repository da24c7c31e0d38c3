"""The label account: what each image of a run will be called, and from where, known before the work."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.data.account_files import FileAccount, Listed, counted, most_first

_LINES_OF_CLASSES = 22


@dataclass(frozen=True)
class ClassCount:
    """A class, how the data writes it where it is not its index, and the number of images with this label."""

    index: int
    name: str
    written: str
    images: int

    def __str__(self) -> str:
        written = f"{self.written} = " if self.written and self.written != str(self.index) else ""
        return f"{written}{self.index}{f' {self.name}' if self.name and self.name != self.written else ''}"


@dataclass(frozen=True)
class Inside:
    """What the first images of some tars and Parquet files hold; the rest is known only when it is read.

    Attributes:
        shards, of: number of shards that were looked into, and of all of them.
        images, labels, boxes: number of images that were looked at, and of those with labels and boxes of their own.
        wrong: number of images whose label is no class, or contradicts another name of their class.
        blind: number of images of which only the key is known.
        classes: the classes of the images that were looked at.
        example: why the label of one of them is wrong.
        replaced: number of images whose label a file replaces by another one.
        parts: number of images that have the values of their parts.
        wrong_parts, parts_example: number of images whose parts are invalid, and why those of one are.
        weights: the sha256 of each model that the values of parts are of.
    """

    shards: int
    of: int
    images: int
    labels: int
    boxes: int
    wrong: int = 0
    blind: int = 0
    classes: tuple[ClassCount, ...] = ()
    example: str = ""
    replaced: int = 0
    parts: int = 0
    wrong_parts: int = 0
    parts_example: str = ""
    weights: tuple[str, ...] = ()

    @property
    def is_unknown(self) -> bool:
        """Return whether nothing was seen, or nothing but keys, so that anything may be inside."""
        return self.blind > 0 or not self.images

    def line(self) -> str:
        """Describe the look in one line."""
        place = f"{self.shards:,} of {counted(self.of, 'shard')}"
        seen = self.images - self.blind
        if not seen:
            return f"inside the shards: not known before {counted(self.of, 'shard')} are read"
        wrong = f", {self.wrong:,} one that is no class or contradicts another column" if self.wrong else ""
        replaced = f"; the file of labels says another class of {self.replaced:,} of them" if self.replaced else ""
        parts = f", {self.parts:,} have parts" if self.parts else ""
        return (
            f"inside the shards: of the first {counted(seen, 'image')} in {place}, {self.labels:,} have a label{wrong}"
            f", {self.boxes:,} have boxes{parts}; the others become known while they are read{replaced}"
        )


@dataclass(frozen=True)
class LabelAccount:
    """What each image will be called, and from where.

    Attributes:
        images: number of images in folders and lists, all of which are known; 0 if there are only shards.
        labelled: number of these that have a label.
        several: number of these that have several labels.
        boxed: number of these that have boxes.
        unreadable, unreadable_example, unreadable_why: number of these whose label is no class, one such label, and why
            it is none.
        files: the files of labels and boxes.
        source: where the names of classes come from.
        folders: how sub-folders became classes, or why they did not.
        classes: the known classes with their images, by index.
        inside: what the first images of shards hold; None if there are only folders, or a manifest.
        listed: what the manifest says of its images; None without one.
        ignored: number of files that were ignored, by kind.
        notes: anything else that the user must know.
        absent, absent_examples: number of classes of the table without an image, and some of them.
    """

    images: int = 0
    labelled: int = 0
    boxed: int = 0
    unreadable: int = 0
    unreadable_example: str = ""
    files: tuple[FileAccount, ...] = ()
    source: str = ""
    folders: tuple[str, ...] = ()
    classes: tuple[ClassCount, ...] = ()
    inside: Inside | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    several: int = 0
    listed: Listed | None = None
    absent: int = 0
    absent_examples: tuple[str, ...] = ()
    unreadable_why: str = ""

    @property
    def has_labels(self) -> bool:
        """Return whether any image is known to have a label, or may have one."""
        from_files = any((file.kind == "labels" or file.gives_labels) and file.matched for file in self.files)
        inside = self.inside is not None and (self.inside.labels or self.inside.wrong or self.inside.is_unknown)
        return bool(self.labelled or self.unreadable or from_files or inside)

    @property
    def has_boxes(self) -> bool:
        """Return whether any image is known to have boxes, or may have some."""
        inside = self.inside is not None and (self.inside.boxes or self.inside.is_unknown)
        return bool(self.boxed or self._has_rows("boxes") or inside)

    @property
    def has_parts(self) -> bool:
        """Return whether any image is known to have parts, or may have some: those in shards of which none was seen."""
        inside = self.inside
        return inside is not None and bool(inside.parts or inside.wrong_parts or not inside.images)

    def _has_rows(self, kind: str) -> bool:
        return any(file.kind == kind and file.matched for file in self.files)

    def summary(self) -> str:
        """Say in one line how many images have a label, and of how many classes."""
        if not self.images and self.inside:
            return self.inside.line()
        labelled = f"{self.labelled:,} of {counted(self.images, 'image')} have a label"
        return f"{labelled}; {_kinds(len(self.classes))}, such as {self.classes[0]}" if self.classes else labelled

    def lines(self) -> list[str]:
        """Return the account as at most 40 lines of text."""
        labels = [self.listed.line()] if self.listed else []
        labels += [file.line() for file in self.files if file.kind == "labels"]
        labels += list(self.folders)
        if self.inside:
            labels.append(self.inside.line())
            labels += [f"for example, {self.inside.example}"] if self.inside.example else []
        if not self.has_labels:
            labels.insert(0, self._of_none())
        elif self.images:
            several = f", {self.several:,} of them several" if self.several else ""
            labels.append(f"{self.labelled:,} of {counted(self.images, 'image')} have a label{several}")
        if self.unreadable:
            labels.append(f"{self.unreadable:,} have one that is no class, such as '{self.unreadable_example}'")
        shown = [*_section("labels", _first(labels, 6)), *_section("classes", self._of_classes())]
        elsewhere = "none" if not self.has_boxes else "no file of boxes; those inside the shards are counted above"
        shown += _section("boxes", _first(self._of_boxes(), 2) or [elsewhere])
        if self.ignored:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in most_first(self.ignored)[:6])
            shown += _section("ignored", [f"{counted(sum(self.ignored.values()), 'file')}: {kinds}"])
        return [*shown, *_section("note", _first(list(self.notes), 4))]

    def _of_none(self) -> str:
        """Say that there are no labels, and how to give some."""
        if self.inside is not None:
            return "none known"
        hint = "; data.columns.label names their column" if self.listed else "; data.labels names a file of labels"
        hint = "" if self.folders or self.files else hint
        return f"none of {counted(self.images, 'image')}{hint}" if self.images else "none"

    def _of_boxes(self) -> list[str]:
        from_list = [self.listed.line_of_boxes()] if self.listed and self.listed.boxes else []
        return [*from_list, *(file.line() for file in self.files if file.kind == "boxes")]

    def _of_classes(self) -> list[str]:
        head = [self.source] if self.source else []
        looked_at = not self.images and self.inside is not None
        classes = self.inside.classes if looked_at and self.inside else self.classes
        if not classes:
            return head or ["no names; labels are indices"]
        head += ["of the images that were looked at:"] if looked_at else []
        if self.absent:
            more = ", ..." if self.absent > len(self.absent_examples) else ""
            head.append(f"{_kinds(self.absent)} without a labelled image: {', '.join(self.absent_examples)}{more}")
        texts = [f"{one}: {counted(one.images, 'image')}" for one in classes]
        if len(texts) <= _LINES_OF_CLASSES:
            return [*head, *texts]
        counts = sorted(one.images for one in classes)
        each = counted(counts[0], "image") if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,} images"
        more = f"... {len(texts) - _LINES_OF_CLASSES:,} more; {len(texts):,} classes in all, with {each} each"
        return [*head, *texts[: _LINES_OF_CLASSES - 2], more, *texts[-2:]]

    def warnings(self) -> list[str]:
        """Return what did not match, one sentence for each file."""
        of_list = [self.listed.warning()] if self.listed else []
        return [warning for warning in (*of_list, *(file.warning() for file in self.files)) if warning]

    def to_json(self) -> dict[str, Any]:
        """Return the account for programs, and for the manifest of the run."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "LabelAccount":
        """Read an account that `to_json` wrote."""
        nested = {
            "files": tuple(FileAccount(**_with_tuples(file)) for file in fields["files"]),
            "classes": tuple(ClassCount(**one) for one in fields["classes"]),
            "inside": _inside(fields["inside"]) if fields["inside"] else None,
            "listed": Listed(**fields["listed"]) if fields.get("listed") else None,
        }
        return cls(**(_with_tuples(fields) | nested))


def _kinds(number: int) -> str:
    return "1 class" if number == 1 else f"{number:,} classes"


def _inside(fields: Mapping[str, Any]) -> Inside:
    classes = tuple(ClassCount(**one) for one in fields.get("classes", ()))
    return Inside(**{**_with_tuples(fields), "classes": classes})


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _section(title: str, texts: Sequence[str]) -> list[str]:
    """Write the first text behind a title, and the others below it."""
    return [f"{title if i == 0 else '':<10}{text}" for i, text in enumerate(texts)]


def _first(texts: Sequence[str], most: int) -> list[str]:
    """Return the first texts, and a line that counts the others."""
    return list(texts) if len(texts) <= most else [*texts[: most - 1], f"and {len(texts) - most + 1:,} more"]
