"""Collects the labels, boxes and classes of a run's images, and accounts for where each of them comes from."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.data.account import ClassCount, Inside, LabelAccount
from pipeline.data.account_check import refuse_shared_rows
from pipeline.data.account_files import FileAccount
from pipeline.data.folder_labels import FolderLabels
from pipeline.data.ignored import ignored_beside
from pipeline.data.inputs import reading_of
from pipeline.data.known_labels import refuse_shared_in_files
from pipeline.data.list_pairs import judged, with_doubts
from pipeline.data.look import Look, look
from pipeline.data.manifest_labels import check_against, check_labels, listed
from pipeline.data.sources import Shard
from pipeline.data.sources.annotations import AnnotationFile, Annotations
from pipeline.data.sources.box_formats import Form
from pipeline.data.sources.classes import OF_MODEL, ClassTable, load_classes, named_by_model
from pipeline.data.sources.keys import Matching
from pipeline.data.sources.label_files import load_annotations
from pipeline.data.sources.shards import KNOWN_KINDS, clean_text
from pipeline.data.sources.stored_names import agreed_names
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig
from pipeline.settings.run_file import RunConfig
from pipeline.settings.targets import TargetRules

_EXAMPLES = 3


@dataclass(frozen=True)
class Collected:
    """The labels and boxes of a run, before anything is said about them.

    Attributes:
        annotations: labels and boxes, and the class table of the run.
        given: those of the files that the run file names.
        folders: what is known of each folder of images.
    """

    annotations: Annotations
    given: Annotations
    folders: Mapping[str, FolderLabels]
    stored_names: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes by index; empty if nothing names them."""
        of_folders = (folder.classes.names for folder in self.folders.values())
        return self.given.classes.names or next((names for names in of_folders if names), self.stored_names)


@dataclass(frozen=True)
class Described:
    """The labels and boxes of a run, and what there is to say about them.

    Attributes:
        annotations: labels and boxes, and the class table of the run.
        account: where they come from, without the counts of classes.
        class_names: names of the classes by index; empty if nothing names them.
        folder_names: of each folder of images, the sub-folder of each class.
    """

    annotations: Annotations
    account: LabelAccount
    class_names: tuple[str, ...] = ()
    folder_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def form_of(data: DataConfig) -> Form:
    """Return how the annotations of a run are written."""
    return Form(data.boxes_format, data.boxes_relative, tuple(data.metadata), data.label_separator)


def classes_of(data: DataConfig, of_model: Sequence[str] = ()) -> ClassTable:
    """Return the table of classes.

    Without `data.classes`, columns that each stand for a label name the classes in their order; else the model does.
    """
    if data.classes is None and isinstance(data.columns.labels, list):
        return ClassTable(tuple(data.columns.labels), source="data.columns.labels")
    return named_by_model(of_model) if data.classes is None and of_model else load_classes(data.classes)


def read_annotations(config: RunConfig, shards: Sequence[Shard], of_model: Sequence[str] = ()) -> Annotations:
    """Collect the labels, boxes and classes of images whose run is done, or is none."""
    return collect(config.data, shards, of_model=of_model).annotations


def collect(
    data: DataConfig,
    shards: Sequence[Shard],
    outputs: int | None = None,
    rules: TargetRules | None = None,
    *,
    parts: bool = False,
    of_model: Sequence[str] = (),
) -> Collected:
    """Collect labels, boxes and classes: from the files named in the run file, else from the folders of images.

    Args:
        data: the section of the run file.
        shards: what it names.
        outputs: the model's number of classes, which tells whether sub-folders are classes; None if it is not known.
        rules: what is explained; if this is the label, text that is no label is a failure.
        parts: whether the run reads the parts of images.
        of_model: the names that the model gives to its classes; used where the run file names none.

    Raises:
        ConfigError: a file is unreadable, lacks a column, or contradicts itself, another one, or the class table.
    """
    classes = classes_of(data, of_model)
    listed_shards = [shard for shard in shards if shard.kind == "manifest"]
    check_labels(listed_shards, classes)
    given = load_annotations(data.labels, data.boxes, classes, form_of(data))
    if data.labels is not None:
        check_against(given, data, listed_shards)
    given = replace(given, needs_label=rules is not None and rules.need_label, reads_parts=parts)
    folders = {
        root: FolderLabels.of(root, members, given, outputs, data.folders) for root, members in _members(shards).items()
    }
    if data.folders == "classes" and not folders:
        what = "classes, but there is no folder of images whose sub-folders could be classes"
        raise ConfigError.one("data.folders", what, "leave it out; labels of shards lie inside them, or in data.labels")
    annotations = replace(given, folders={root: folder.annotations for root, folder in folders.items()})
    refuse_shared_in_files(annotations)
    annotations = with_doubts(annotations, data, listed_shards, outputs)
    return Collected(annotations, given, folders, agreed_names(shards, data.columns.label, classes, outputs))


def describe(
    data: DataConfig,
    shards: Sequence[Shard],
    outputs: int | None = None,
    rules: TargetRules | None = None,
    *,
    parts: bool = False,
    of_model: Sequence[str] = (),
) -> Described:
    """Collect labels, boxes and classes as `collect` does; account for them, and for the files that are ignored."""
    found = describe_images(data, shards, outputs, rules, parts=parts, of_model=of_model)
    return replace(
        found,
        account=replace(found.account, ignored=ignored_beside(shards, [file.path for file in found.account.files])),
    )


def describe_images(
    data: DataConfig,
    shards: Sequence[Shard],
    outputs: int | None = None,
    rules: TargetRules | None = None,
    *,
    parts: bool = False,
    of_model: Sequence[str] = (),
) -> Described:
    """Collect and account as `describe` does, without looking for other files; tars and tables are looked into."""
    found = collect(data, shards, outputs, rules, parts=parts, of_model=of_model)
    annotations = found.annotations
    others = [shard for shard in shards if shard.kind not in KNOWN_KINDS]
    seen = Look()
    if others:
        seen = look(others, reading_of(data, annotations))
        annotations = judged(annotations, seen.pairs, seen.singles, len(seen.keys))
        if any(map(annotations.is_new, seen.keys)):
            annotations = replace(annotations, changes="rows by paths")
    in_list = [entry.key for shard in shards for entry in shard.entries]
    account = _account(data, found, len(others), seen, in_list)
    account = replace(account, listed=listed(data, shards))
    folder_names = {
        root: {index: name for name, index in folder.classes.index_of.items()} for root, folder in found.folders.items()
    }
    return Described(annotations, account, found.class_names, folder_names)


def _members(shards: Iterable[Shard]) -> dict[str, list[str]]:
    """List the images of each folder."""
    members: dict[str, list[str]] = defaultdict(list)
    for shard in shards:
        if shard.kind == "folder":
            members[shard.location].extend(map(clean_text, shard.members))
    return members


@dataclass
class _Matched:
    """The images and rows of one file that belong together, in one folder or several."""

    rows: set[str] = field(default_factory=set)
    ways: Counter[str] = field(default_factory=Counter)
    images: int = 0
    without: int = 0
    ambiguous: int = 0
    unmatched: list[str] = field(default_factory=list)

    def add(self, keys: Sequence[str], matching: Matching) -> None:
        """Add the images of one folder."""
        self.rows.update(matching.row_of.values())
        self.ways.update(matching.ways)
        self.images += len(keys)
        self.without += len(keys) - len(matching.row_of)
        self.ambiguous += len(matching.ambiguous)
        missing = (key for key in keys if key not in matching.row_of)
        self.unmatched += [key for key, _ in zip(missing, range(_EXAMPLES), strict=False)]


def _account(data: DataConfig, found: Collected, others: int, seen: Look, in_list: Sequence[str]) -> LabelAccount:
    folders, local = found.folders, [folder.annotations for folder in found.folders.values()]
    keys = (*seen.keys, *in_list)
    files = [_given_file(file, found.given, folders, keys, looked=bool(seen.shards)) for file in found.given.files]
    for folder in folders.values():
        files += [_local_file(file, folder) for file in folder.annotations.files]
    return LabelAccount(
        files=tuple(files),
        source=_source(data, found),
        folders=tuple(dict.fromkeys(folder.classes.why for folder in folders.values() if folder.classes.why)),
        inside=_inside(seen, others, found.class_names) if others else None,
        notes=tuple(itertools.chain(found.given.classes.notes(), *(given.notes for given in (found.given, *local)))),
    )


def _inside(seen: Look, others: int, names: Sequence[str]) -> Inside:
    classes = tuple(
        ClassCount(index, names[index] if index < len(names) else "", "", images)
        for index, images in sorted(seen.of_class.items())
    )
    return Inside(
        shards=seen.shards, of=others, images=len(seen.keys), labels=seen.labels, boxes=seen.boxes, wrong=seen.wrong,
        blind=seen.blind, classes=classes, example=seen.example, replaced=seen.replaced, parts=seen.parts,
        wrong_parts=seen.wrong_parts, parts_example=seen.parts_example, weights=seen.weights,
    )  # fmt: skip


def _given_file(
    file: AnnotationFile,
    given: Annotations,
    folders: Mapping[str, FolderLabels],
    keys: Sequence[str],
    *,
    looked: bool,
) -> FileAccount:
    """Account for a file that the run file names, with the images of folders, and with `keys` from elsewhere."""
    of_labels = file.kind == "labels"
    matched = _Matched()
    for folder in folders.values():
        matched.add(folder.keys, folder.matching(file.kind, "given"))
    if keys:
        find = given.label_row if of_labels else given.described_row if given.described else given.box_row
        row_of = {key: row for key in keys if (row := find(key)) is not None}
        refuse_shared_rows(file, row_of)
        matched.add(keys, Matching(row_of))
    return _file_account(file, _table(given, file), matched, looked=looked)


def _local_file(file: AnnotationFile, folder: FolderLabels) -> FileAccount:
    matched = _Matched()
    matched.add(folder.keys, folder.matching(file.kind, "local"))
    return _file_account(file, _table(folder.annotations, file), matched)


def _table(annotations: Annotations, file: AnnotationFile) -> Collection[str]:
    """Return the names in a file of labels or boxes."""
    return annotations.labels if file.kind == "labels" else annotations.described or annotations.boxes


def _file_account(
    file: AnnotationFile, table: Collection[str], matched: _Matched, *, looked: bool = False
) -> FileAccount:
    unused = (row for row in table if row not in matched.rows)
    examples = tuple(row for row, _ in zip(unused, range(_EXAMPLES), strict=False))
    return FileAccount(
        file.kind, file.path, file.rows, file.repeated, len(matched.rows), matched.images, matched.without,
        len(table) - len(matched.rows), dict(matched.ways), looked, matched.ambiguous, examples,
        tuple(matched.unmatched[:_EXAMPLES]), file.gives_labels,
    )  # fmt: skip


def _source(data: DataConfig, found: Collected) -> str:
    table, folders = found.given.classes, found.folders
    if data.classes is not None:
        return f"{len(table.names):,} names from {data.classes}"
    if table.source == OF_MODEL:
        return f"{len(table.names):,} names from the model"
    if table.names:
        return f"the {len(table.names):,} columns of data.columns.labels"
    named = [folder.classes for folder in folders.values() if folder.classes.names]
    if not named:
        return f"{len(found.stored_names):,} names that the tables store" if found.stored_names else ""
    own = all(one.names[index] == name for one in named for name, index in one.index_of.items() if one.names)
    return "the folders' own names" if own else "names of ImageNet, by the ids that the folders have"
