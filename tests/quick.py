"""Settings that make every method cheap, with few steps, samples and masks, so that tests can run them all."""

from pipeline.cams import METHODS

QUICK: dict[str, dict[str, object]] = {
    "rise": {"num_masks": 16, "grid": 8},
    "opti_cam": {"iterations": 3},
    "integrated_gradcam": {"steps": 3},
    "rsi_gradcam": {"steps": 3},
    "integrated_gradients": {"steps": 3, "grid": 8},
    "smoothgrad": {"samples": 2, "grid": 8},
    "smooth_gradcam_pp": {"samples": 2},
    "sscam": {"samples": 2},
    "iscam": {"num_steps": 2},
    "fullgrad": {"grid": 8},
}
SPECS = {name: {name: QUICK.get(name, {})} for name in METHODS}
OF_ATTENTION = [name for name, kind in METHODS.items() if kind().needs.attention]
"""Methods that need a network with attention."""
