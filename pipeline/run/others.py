"""Checks and describes the methods of others before a run: attributions of captum, and stored maps."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.cams import Adapter, CamMethod
from pipeline.cams.captum import Captum
from pipeline.cams.stored import Stored
from pipeline.data.look import look
from pipeline.data.sources import Reading, Shard
from pipeline.errors import ConfigError, Mistake, Mistakes
from pipeline.explain.requirements import check_adapters, check_redrawn
from pipeline.metrics import Metric
from pipeline.model.baselines import Normalisation
from pipeline.model.probe import Probe
from pipeline.model.trial import model_of_trials
from pipeline.model.zoo import LoadedModel


def check_others(methods: Mapping[str, CamMethod], metrics: Mapping[str, Metric], loaded: LoadedModel) -> None:
    """Raise ConfigError if methods of others do not suit the model or the metrics."""
    height, width = loaded.preprocess.size
    shape = (loaded.preprocess.channels, height, width)
    mistakes = Mistakes()
    with mistakes.collecting():
        check_redrawn(methods, metrics)
    with mistakes.collecting():
        check_adapters(methods, lambda: _trial_probe(loaded), shape)
    mistakes.raise_if_any()


def _trial_probe(loaded: LoadedModel) -> Probe:
    return Probe(
        model_of_trials(loaded.model, loaded.outputs), loaded.layer, stages=loaded.stages, outputs=loaded.outputs,
        layout=loaded.layouts,
        normalisation=Normalisation(loaded.preprocess.mean, loaded.preprocess.std),
    )  # fmt: skip


def check_stored_keys(methods: Mapping[str, CamMethod], shards: Sequence[Shard], reading: Reading) -> None:
    """Raise ConfigError if none of the first images of a run has a stored map: they are of other images."""
    stored = [method for method in methods.values() if isinstance(method, Stored)]
    keys = look(shards, reading).keys if stored else ()
    problems = dict.fromkeys(problem for method in stored if (problem := method.check_keys(keys)))
    if problems:
        hint = "give the maps of these images, under the keys that `camatlas query` shows in the column image_key"
        raise ConfigError([Mistake("explain.methods.stored", problem, hint) for problem in problems])


def notes_of(methods: Mapping[str, CamMethod]) -> Iterator[str]:
    """Yield what the user should know about methods of others, once each."""
    notes = [note for method in methods.values() if isinstance(method, Adapter) for note in method.notes()]
    yield from dict.fromkeys(notes)


def packages_of(methods: Mapping[str, CamMethod]) -> set[str]:
    """Return the libraries whose versions matter for methods of others."""
    return {Captum.name for method in methods.values() if isinstance(method, Captum)}
