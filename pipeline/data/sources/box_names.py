"""The names of classes in files of boxes, and which class of the model each of them is."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.shards import Box, Described
from pipeline.errors import ConfigError, nearest

WHERE = "data.boxes"
Object = tuple[str, Box | None]
"""The name of an object's class, and its box; None for an object whose box is not used."""


class Naming:
    """Decides which objects of a file have a class of the model.

    With a single name that is no class, such as "object", its boxes belong to the label of their image. Of several
    names, those that are no classes are left out, but one of them at least must be a class.

    Args:
        location: the file.
        names: all names of classes in it.
        classes: the table of the model's classes.

    Raises:
        ConfigError: there are several names, and none of them is a class; or several classes share one of them.
    """

    def __init__(self, location: str, names: Iterable[str], classes: ClassTable) -> None:
        distinct = list(dict.fromkeys(names))
        if shared := [name for name in distinct if classes.sharing(name)]:
            raise _shared(location, shared[0], classes)
        self.known = {name for name in distinct if classes.index(name) is not None}
        self._location, self._classes = location, classes.source
        self._left_out: Counter[str] = Counter()
        self._of_label = len(distinct) == 1 and not self.known
        if len(distinct) > 1 and not self.known:
            raise _without_classes(location, distinct, classes)

    def described(self, objects: Sequence[Object], *, relative: bool = False) -> Described:
        """Return labels and boxes of an image, given its objects."""
        if self._of_label:
            return Described(boxes_xyxy=tuple(box for _, box in objects if box is not None), relative=relative)
        self._left_out.update(name for name, _ in objects if name not in self.known)
        known = [(name, box) for name, box in objects if name in self.known]
        boxed = [(name, box) for name, box in known if box is not None]
        return Described(
            labels=tuple(dict.fromkeys(name for name, _ in known)),
            boxes_xyxy=tuple(box for _, box in boxed),
            box_labels=tuple(name for name, _ in boxed),
            relative=relative,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Say which objects were left out of the images described so far."""
        if not self._left_out:
            return ()
        names = ", ".join(f"'{name}'" for name, _ in self._left_out.most_common(3))
        more = f" and {len(self._left_out) - 3} more" if len(self._left_out) > 3 else ""
        total = self._left_out.total()
        objects = "1 object" if total == 1 else f"{total} objects"
        return (f"{self._location}: {objects} left out, because {self._classes} does not have {names}{more}",)


@dataclass(frozen=True)
class BoxFile:
    """What a file of boxes says of images, by name, and what was left out of it."""

    images: Mapping[str, Described]
    notes: tuple[str, ...] = ()


def _shared(location: str, name: str, classes: ClassTable) -> ConfigError:
    indices = ", ".join(map(str, classes.sharing(name)))
    what = f"'{location}' names the class '{name}', which is the name of several classes in {classes.source}: {indices}"
    return ConfigError.one(WHERE, what, f"give each class a name of its own in {classes.source}")


def _without_classes(location: str, names: Sequence[str], classes: ClassTable) -> ConfigError:
    shown = ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if not classes.names:
        what = f"is required, because '{location}' names its classes: {shown}"
        return ConfigError.one("data.classes", what, "give the table of the classes that the model was trained on")
    what = f"none of the classes of '{location}' is in {classes.source}: {shown}"
    return ConfigError.one(WHERE, what, nearest(names[0], classes.names))
