"""Loads a model's weights from a file, and identifies weights by their hash."""

import hashlib
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, first_line, nearest
from pipeline.model.checkpoints import Reading, described, distinct, readings
from pipeline.model.weight_files import WHERE, read_weights

_KEY = "model.weights_key"
_MOST_NAMED = 5
"""Most names of a kind in an error message."""


def load_weights(
    model: nn.Module,
    path: str,
    *,
    allow_pt: bool,
    key: str | None = None,
    other_architectures: Collection[str] = (),
) -> tuple[str, ...]:
    """Load a weights file into a model, and return notes for the user.

    Names and shapes must be those of the model, except for one nesting and one prefix. Half-precision weights are
    converted to the model's precision.

    Args:
        model: the model.
        path: the file.
        allow_pt: whether the file may be a pickle, of plain values and tensors alone.
        key: the nesting, and after it the prefix, that the user states: `state_dict_ema` or `state_dict.model`.
        other_architectures: names of the library's other models; a checkpoint that states one of them is refused.

    Raises:
        ConfigError: the file is missing, cannot be read safely, or does not fit, or more than one reading of it fits.
    """
    content = read_weights(path, allow_pt=allow_pt)
    found = list(readings(content, tensors_of(model)))
    if not any(found):
        raise ConfigError.one(WHERE, f"'{path}' holds no tensors under names", "save a state dict")
    if key is None:
        _check_architecture(path, content, other_architectures)
    else:
        found = _stated(found, key)
    reading = _only(path, found, key) or _renamed_by_hooks(path, found, key, model)
    _fill(model, reading, path)
    return _notes(path, reading)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a model's state dict, without other objects that its modules save."""
    return {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}


def digest(model: nn.Module) -> str:
    """Return the sha256 of a model's parameters and buffers (names, dtypes, shapes, bytes), in hexadecimal."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors_of(model).items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _check_architecture(path: str, content: object, others: Collection[str]) -> None:
    """Raise ConfigError if a checkpoint states another architecture: its tensors may fit where its functions do not."""
    stated = content.get("arch") if isinstance(content, Mapping) else None
    if isinstance(stated, str) and stated.partition(".")[0] in others:
        raise ConfigError.one(
            WHERE,
            f"'{path}' states the architecture '{stated}', which is not that of model.name",
            f"correct model.name, or set {_KEY} if the statement is wrong",
        )


def _stated(found: Sequence[Sequence[Reading]], key: str) -> list[list[Reading]]:
    """Keep the readings that the user's key names."""
    kept = [[reading for reading in level if key in (reading.key, reading.nesting_key)] for level in found]
    if not any(kept):
        known = {name for level in found for reading in level for name in (reading.key, reading.nesting_key) if name}
        raise ConfigError.one(_KEY, f"the weights file has nothing under '{key}'", nearest(key, known))
    return kept


def _only(path: str, found: Sequence[Sequence[Reading]], key: str | None) -> Reading | None:
    """Return the reading under which everything fits, or None; raise ConfigError if there are several."""
    for level in found:
        complete = distinct(reading for reading in level if reading.is_complete(alone=reading.key != key))
        if len(complete) > 1:
            raise ConfigError.one(
                WHERE,
                f"'{path}' has {len(complete)} sets of weights that fit the model and differ",
                f"set {_KEY} to one of {', '.join(repr(reading.key) for reading in complete)}",
            )
        if complete:
            return complete[0]
    return None


def _renamed_by_hooks(path: str, found: Sequence[Sequence[Reading]], key: str | None, model: nn.Module) -> Reading:
    """Return the best reading if modules of the model accept its names, as some do for names of older versions."""
    best = max((reading for level in found for reading in level), key=lambda reading: reading.fitting)
    refusal = _misfit(path, best, [reading for level in found for reading in level])
    if best.different or (best.outside and best.key != key):
        raise refusal
    try:
        model.load_state_dict(dict(best.state), strict=True)
    except Exception:  # a module's hook may raise anything
        raise refusal from None
    return best


def _fill(model: nn.Module, reading: Reading, path: str) -> None:
    shapes = model.state_dict()
    state = {
        name: tensor.reshape(shapes[name].shape) if name in shapes else tensor for name, tensor in reading.state.items()
    }
    try:
        model.load_state_dict(state, strict=True)
    except Exception as error:  # the model may have a loading function of its own
        raise ConfigError.one(WHERE, f"'{path}' does not fit the model: {first_line(error)}") from None


def _misfit(path: str, best: Reading, all_readings: Sequence[Reading]) -> ConfigError:
    """Say how far a file is from fitting, and what could be done."""
    as_named = [reading for reading in all_readings if not reading.changed]
    crowded = {reading.key: reading for reading in as_named if reading.is_complete(alone=False)}
    if crowded:
        outside = next(iter(crowded.values())).outside
        return ConfigError.one(
            WHERE,
            f"'{path}' has all tensors of the model {' and '.join(map(str, crowded.values()))}, but also others: "
            f"{_named(outside)}",
            f"set {_KEY} to {' or '.join(map(repr, crowded))} to leave them out",
        )
    if 2 * max(reading.shared for reading in all_readings) < len(best.wanted):
        whole = max(as_named or all_readings, key=lambda reading: (len(reading.state), -len(reading.prefix)))
        return _other_architecture(path, whole)
    shapes = [
        f"{name} {described(best.state[name])} instead of {described(best.wanted[name])}" for name in best.different
    ]
    parts = {
        "missing": best.missing,
        "not in the model": best.unexpected,
        "of another shape or type": shapes,
        "outside": best.outside,
    }
    problems = "; ".join(f"{what}: {_named(names)}" for what, names in parts.items() if names)
    how = f"{best.fitting} of its {len(best.wanted)} tensors are found {best}"
    return ConfigError.one(WHERE, f"'{path}' does not fit the model: {how}; {problems}", _advice(best, all_readings))


def _other_architecture(path: str, whole: Reading) -> ConfigError:
    """Show the names of a file beside those of the model; so few agree that no prefix explains the others."""
    kinds = {"only in the file": whole.unexpected, "only in the model": whole.missing}
    names = "; ".join(f"{where}: {_named(found)}" for where, found in kinds.items() if found)
    return ConfigError.one(
        WHERE,
        f"'{path}' does not fit the model: these seem to be the weights of another architecture; {names}",
        "give the weights of this architecture, or correct model.name",
    )


def _advice(best: Reading, all_readings: Sequence[Reading]) -> str:
    heads = {best.state[name].shape[:1] for name in best.different}
    tails_agree = all(best.state[name].shape[1:] == best.wanted[name].shape[1:] for name in best.different)
    if not best.missing and not best.unexpected and len(heads) == 1 and tails_agree and (head := heads.pop()):
        return (
            f"the weights seem to be for {head[0]} classes: build the model for as many, with model.num_classes, or "
            "with model.arguments for a function"
        )
    others = {
        str(reading): reading.fitting
        for reading in all_readings
        if reading.fitting and not reading.changed and str(reading) != str(best)
    }
    tried = "".join(f"; {fitting} would be found {where}" for where, fitting in list(others.items())[:2])
    return f"give the weights of this architecture{tried}"


def _notes(path: str, reading: Reading) -> tuple[str, ...]:
    if not (reading.nesting or reading.prefix or reading.changed):
        return ()
    left_out = f"; left out: {_named(reading.outside)}" if reading.outside else ""
    return (f"the weights in {path} were found {reading}{left_out}",)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
