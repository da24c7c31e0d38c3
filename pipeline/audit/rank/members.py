"""The runs of a ranking: what each explained and how, whether it is complete, and its values image by image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.audit.values import Values, load_values
from pipeline.errors import ConfigError, DamagedRunError, Mistakes
from pipeline.results.atlas import is_atlas
from pipeline.results.query import open_run
from pipeline.results.status import Count, Status, status
from schemas.manifest import RunManifest


@dataclass(frozen=True)
class Member:
    """One run.

    Attributes:
        name: the last part of its path, or the whole path if two runs share that.
        manifest: its manifest.
        values: its values, image by image.
        chunks: number of finished chunks.
        chunks_total: number of all chunks.
        is_complete: whether all chunks are finished.
        constant: share of constant maps of each method.
    """

    name: str
    manifest: RunManifest
    values: Values
    chunks: int
    chunks_total: Count
    is_complete: bool
    constant: Mapping[str, float]

    @property
    def model(self) -> str:
        """Return the name of its model."""
        return str(self.manifest.identity.model.get("name", ""))

    @property
    def weights(self) -> tuple[str, str]:
        """Return the name of its model and the digest of the weights: what makes two models the same."""
        return self.model, str(self.manifest.identity.model.get("weights_sha256", ""))

    @property
    def has_random_weights(self) -> bool:
        """Return whether the model was not trained."""
        return dict(self.manifest.config.get("model") or {}).get("weights") == "random"

    @property
    def state(self) -> str:
        """Describe how far the run is."""
        if self.is_complete:
            return "complete"
        about = "" if self.chunks_total.exact else "about "
        total = "unknown" if self.chunks_total.number is None else f"{about}{self.chunks_total.number:,}"
        return f"incomplete: {self.chunks:,} of {total} chunks"


def load_members(paths: Sequence[str]) -> list[Member]:
    """Read the runs.

    Raises:
        ConfigError: a path is no run, or has no finished chunk; two paths are the same run. All mistakes at once.
        DamagedRunError: a part is damaged or missing.
    """
    mistakes, found = Mistakes(), list[Member]()
    for path, name in zip(paths, _names(paths), strict=True):
        with mistakes.collecting():
            member = _load(path, name)
            same = [one.name for one in found if one.manifest.run_id == member.manifest.run_id]
            if same:
                what = f"'{same[0]}' and '{name}' are the same run, which would count twice"
                raise ConfigError.one("RUN", what, "name each run once")
            found.append(member)
    mistakes.raise_if_any()
    return found


def _names(paths: Sequence[str]) -> list[str]:
    lasts = [path.rstrip("/").rpartition("/")[2] or path for path in paths]
    counts = Counter(lasts)
    return [last if counts[last] == 1 else path for last, path in zip(lasts, paths, strict=True)]


def _load(path: str, name: str) -> Member:
    if is_atlas(path):
        raise ConfigError.one("RUN", f"'{path}' is a folder of runs, not a run", f"name its runs: {path.rstrip('/')}/*")
    with open_run(path) as run:
        found = status(run.store, now=0.0, patience=None)  # the moment only tells running runs from stopped ones
        _refuse_damage(found, run.store.url)
        return Member(
            name, run.manifest, load_values(run), found.chunks_done, found.chunks_total,
            found.state == "complete", found.degenerate,
        )  # fmt: skip


def _refuse_damage(found: Status, url: str) -> None:
    if found.damaged:
        part, why = min(found.damaged.items())
        raise DamagedRunError(f"{url}/{part}: {why}; run `camatlas verify`")
