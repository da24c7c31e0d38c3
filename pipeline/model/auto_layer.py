"""Chooses the target layer of any classifier: the last one at the deepest resolution whose patches reach the logits.

No architecture is known by name. One traced pass shows what every module gives, and a backward pass which of the
candidates the logits depend on.

Legend: B images, N classes, K channels, (u, v) grid.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from pipeline.errors import LayerError
from pipeline.model.engine import Exact
from pipeline.model.layout import GridView
from pipeline.model.layout_trial import Trial, patched_images
from pipeline.model.recording import recording
from pipeline.model.trace import Call, Calls

_TOGETHER = 48
"""Number of candidates whose gradients one pass keeps."""
_SUGGESTIONS = 5


@dataclass(frozen=True)
class Candidate:
    """A module that runs once and gives maps.

    Attributes:
        call: the module's call.
        view: the layout of its output.
    """

    call: Call
    view: GridView

    @property
    def name(self) -> str:
        """The module's name."""
        return self.call.name


def auto_layer(trial: Trial, calls: Calls) -> str:
    """Return the name of the target layer for "auto".

    It is the last module to end among those that run once, give maps of the deepest resolution, and on whose patches
    the logits depend. The deepest resolution is that of the last module with parameters whose output still has a grid.
    Modules inside of an attention, and maps of class scores, are taken only if nothing else serves. For tokens it is
    the last such layer before the last attention: after it, a class token alone may reach the logits.

    Args:
        trial: the model and the size of its images.
        calls: the calls of a forward pass.

    Raises:
        LayerError: no module gives maps on which the logits depend.
    """
    candidates = _candidates(calls, trial.size)
    deepest = _deepest(candidates)
    for group in (deepest, [other for other in candidates if other not in deepest]):
        found = _first_serving(trial, group)
        if found is not None:
            return _before_last_attention(trial, found, group, calls).name
    raise LayerError(f"'auto' finds no layer: {_why(calls, candidates)}")


def serving_layers(trial: Trial, calls: Calls, like: str = "") -> list[str]:
    """Return layers that were tried and serve: those named most like `like`, or one for each resolution, deep first."""
    candidates = _candidates(calls, trial.size)
    near = difflib.get_close_matches(like, [candidate.name for candidate in candidates], _SUGGESTIONS, 0.5)
    if near:
        reach = _reaching(trial, [candidate for candidate in candidates if candidate.name in near])
        return [name for name in near if reach.get(name) == "channels"]
    by_cells = dict[int, list[Candidate]]()
    for candidate in candidates:
        by_cells.setdefault(candidate.view.cells, []).append(candidate)
    found = (_first_serving(trial, by_cells[cells]) for cells in sorted(by_cells))
    return [candidate.name for candidate in islice(filter(None, found), _SUGGESTIONS)]


def _candidates(calls: Calls, size: tuple[int, int]) -> list[Candidate]:
    """Return the modules that run once and whose layout follows the image, in the order in which they end."""
    views = ((call, call.view(size)) for call in calls.values() if call.runs_once and not call.is_identity)
    return [Candidate(call, view) for call, view in views if view is not None]


def _deepest(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates at the resolution of the last module with parameters of its own."""
    parametric = [candidate for candidate in candidates if candidate.call.has_parameters]
    if not parametric:
        return []
    cells = parametric[-1].view.cells
    return [candidate for candidate in candidates if candidate.view.cells == cells]


def _first_serving(trial: Trial, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the last candidate that serves, rather outside of attentions and without class scores."""
    second_choice = None
    for part in _parts(candidates[::-1]):
        reach = _reaching(trial, part)
        for candidate in part:
            if reach.get(candidate.name) == "channels":
                if not candidate.call.in_attention:
                    return candidate
                second_choice = second_choice or candidate
            elif reach.get(candidate.name) == "class":
                second_choice = second_choice or candidate
    return second_choice


def _parts(candidates: Sequence[Candidate]) -> Iterator[Sequence[Candidate]]:
    for first in range(0, len(candidates), _TOGETHER):
        yield candidates[first : first + _TOGETHER]


def _reaching(trial: Trial, candidates: Sequence[Candidate]) -> dict[str, str]:
    """Tell on which candidates' patches a logit depends: on all "channels" alike, or on the one of its own "class"."""
    model = trial.model
    saved = dict[str, Tensor]()
    modules = {candidate.name: model.get_submodule(candidate.name) for candidate in candidates}
    with torch.inference_mode(False):
        pixels_1CHW = patched_images(trial.shape, 0, trial.device)[-1:]
        with recording(modules, saved, gradients=True):
            logits_1N = Exact(model, trial.outputs).logits(pixels_1CHW, differentiable=True)
        if not logits_1N.requires_grad:
            return {}
        ranked = logits_1N[0].argsort(descending=True).tolist()
        for target in dict.fromkeys((ranked[0], ranked[-1])):  # the first may be a constant, as in (0, z)
            with torch.enable_grad():
                logit_1 = trial.outputs.target_logits(logits_1N, torch.tensor([target], device=logits_1N.device))
                grads = torch.autograd.grad(logit_1[0], list(saved.values()), allow_unused=True, retain_graph=True)
            by_name = dict(zip(saved, grads, strict=True))
            found = {
                candidate.name: _kind_of(candidate.view.grid(grad), target, logits_1N.shape[1])
                for candidate in candidates
                if (grad := by_name.get(candidate.name)) is not None
            }
            if set(found.values()) - {"nothing"}:
                return found
    return {}


def _kind_of(grad_1Kuv: Tensor, target: int, classes: int) -> str:
    channels_K = grad_1Kuv[0].abs().amax((1, 2)) > 0
    if not bool(channels_K.any()):
        return "nothing"
    only_own = len(channels_K) == classes > 1 and bool(channels_K[target]) and int(channels_K.sum()) == 1
    return "class" if only_own else "channels"


def _before_last_attention(trial: Trial, found: Candidate, group: Sequence[Candidate], calls: Calls) -> Candidate:
    """Return the last candidate before the last attention over the tokens of a layer; the layer itself if none is."""
    if found.view.kind != "tokens":
        return found
    tokens = {found.view.cells + prefix for prefix in (0, found.view.prefix)}
    over_tokens = [
        call
        for call in calls.values()
        if call.is_attention and not call.in_attention
        if len(call.response.shape) == 3 and call.response.shape[1] in tokens
    ]
    if not over_tokens or found.call.ended < over_tokens[-1].begun:
        return found
    before = [candidate for candidate in group if candidate.call.ended < over_tokens[-1].begun]
    return _first_serving(trial, before) or found


def _why(calls: Calls, candidates: Sequence[Candidate]) -> str:
    if not calls:
        return "the model calls no modules; write its steps as modules"
    tried = f"{len(calls)} modules were tried"
    if not candidates:
        return f"{tried}, and the output of none follows the image; name a layer and state its model.layout"
    return (
        f"{tried}, and the logits depend on none of the {len(candidates)} whose output follows the image; check that "
        "the model's weights are loaded (a new classifier of zeros gives every image the same logits), and that it "
        "detaches nothing"
    )
