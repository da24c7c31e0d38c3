"""The events of `camatlas explain --json`, with their fields; the reference of the documentation lists them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Described:
    """An event, or a kind of warning.

    Attributes:
        meaning: when it is emitted.
        fields: the meaning of each field, beside `event` and `time`.
    """

    meaning: str
    fields: Mapping[str, str] = field(default_factory=dict)


_PROGRESS = {
    "images": "images of this session so far",
    "images_per_second": "mean rate of this session; null as long as it is not known",
    "chunks": "published chunks of this session",
    "failures": "failures of this session, by code",
    "eta_seconds": "estimated time left; null as long as it is not known",
}

EVENTS = {
    "starting": Described(
        "The run file is read, and what it names is checked while torch and Ray are loaded.",
    ),
    "start": Described(
        "All checks have passed, and the run folder belongs to this run.",
        {
            "run_id": "hash of what determines the rows",
            "path": "the run folder",
            "new": "whether the folder was empty",
            "chunks_done": "chunks that are in the folder already",
            "images_left": "images to explain in this session; null: unknown",
            "notes": "sentences on choices that were made for the user",
            "versions": "versions of camatlas and its libraries",
        },
    ),
    "labels": Described(
        "The label account: what each image will be called.",
        {
            "images": "number of images in folders and lists; 0 if there are only shards",
            "labelled": "number of these that have a label",
            "several": "number of these that have several labels",
            "boxed": "number of these that have boxes",
            "unreadable": "number of these whose label is no class",
            "unreadable_example": "one such label",
            "unreadable_why": "what is wrong with it, where that is known",
            "files": "the files of labels and boxes, with their rows that match an image and those that do not",
            "source": "where the names of classes come from",
            "folders": "how sub-folders became classes, or why they did not",
            "classes": "the known classes with their images",
            "inside": "what the first images of shards hold; null: there are only folders, or a manifest",
            "listed": "what the manifest says of its images; null: there is none",
            "ignored": "number of files that were ignored, by kind",
            "notes": "sentences on anything else",
            "absent": "number of classes of the table without an image",
            "absent_examples": "some of these",
        },
    ),
    "workers": Described(
        "Ray has started.",
        {"workers": "number of workers", "device": "their device"},
    ),
    "progress": Described("At most once per second, and once at the end.", _PROGRESS),
    "warning": Described(
        "Something that needs attention, while the run goes on.",
        {"kind": "a word for programs, see below", "message": "a sentence for people"},
    ),
    "stopped": Described("The run was interrupted or terminated; finished chunks are kept.", _PROGRESS),
    "end": Described(
        "The run has ended. This event goes to stdout; the totals include earlier sessions.",
        {
            "path": "the run folder",
            "images": "images of the run",
            "explained": "images with at least one explanation",
            "rows": "explanations",
            "with_failures": "images and damaged places with a failure",
            "damages": "damaged places in shards",
            "failure_rate": "share of images and damaged places with a failure",
            "failures": "failures by stage and code",
            "degenerate": "share of constant maps, by method",
            "session": "this session, see below; null: there was nothing to do",
        },
    ),
}

SESSION = {
    "seconds": "length of the session",
    "workers": "number of workers",
    "stage_seconds": "seconds of all workers, by stage",
    "stage_shares": "the same as shares",
    "beside_seconds": "seconds of reading and publishing, which run beside the model",
    "bottleneck": "what limits the speed, and the setting that removes it",
}
"""The field `session` of the event `end`."""

WARNINGS = {
    "worker_replaced": Described("A worker died and was replaced.", {"worker": "name of the new worker"}),
    "smaller_passes": Described(
        "A worker ran out of memory and makes smaller passes.",
        {"worker": "name of the worker", "batch": "images in one pass from now on"},
    ),
    "careful": Described(
        "An attempt at a chunk ended early, so its images are explained one by one.",
        {"shard": "name of the shard", "chunk": "ordinal of the chunk", "reasons": "why attempts ended"},
    ),
    "poison_image": Described(
        "Images killed their worker in every attempt; they are failures.",
        {"shard": "name of the shard", "chunk": "ordinal of the chunk", "images": "how many"},
    ),
    "waiting_for_gpus": Described(
        "GPUs are missing; the run begins on those that are there.",
        {"seconds": "time without progress after which the run ends"},
    ),
    "note_of_worker": Described("A worker has something to say.", {"worker": "name of the worker"}),
    "low_16_bit_values": Described(
        "The 16-bit images of the run are almost black.",
        {"images": "images of more than 8 bits", "largest": "their largest value"},
    ),
    "label_order": Described(
        "The labels do not seem to number the classes as the model does.",
        {"images": "labelled images so far", "right": "those that are predicted as labelled"},
    ),
    "labels": Described("A label file does not match all images."),
    "constant_maps": Described("Many maps of a method are constant."),
    "too_many_failures": Described("More images failed than `--max-failure-rate` allows: exit code 3."),
}
"""The kinds of the event `warning`, with the fields that each has beside `kind` and `message`."""
