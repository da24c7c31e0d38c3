"""The table of a run's sanity checks: one row per test, step and method."""

import pyarrow as pa

from schemas.explanation import described

SANITY_FOLDER = "_sanity"

SANITY_SCHEMA = pa.schema(
    [
        described("test", pa.string(), "", "randomisation of the model, or class_swap", nullable=False),
        described("step", pa.int32(), "", "of the randomisation, from the output on; each keeps those before it"),
        described("first_layer", pa.string(), "", "first layer made random in this step"),
        described("last_layer", pa.string(), "", "last layer made random in this step"),
        described("method", pa.string(), "", "name of the CAM method within the run", nullable=False),
        described("images", pa.int32(), "", "images whose maps were drawn again"),
        described("maps", pa.int32(), "", "pairs of maps that could be compared: neither is degenerate"),
        described("degenerate", pa.float32(), "share, [0, 1]", "maps of the changed model that show nothing"),
        described("spearman", pa.float32(), "[-1, 1]", "mean rank correlation of the maps before and after"),
        described("spearman_half_width", pa.float32(), "[0, 2]", "half the width of its 95 % interval"),
        described("ssim", pa.float32(), "[-1, 1]", "mean structural similarity of the maps before and after"),
        described("ssim_half_width", pa.float32(), "[0, 2]", "half the width of its 95 % interval"),
    ]
)
