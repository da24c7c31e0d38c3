"""Methods that fail in real workers on every image: by an error, by lack of memory, by the loss of the device."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from faults.checker import check
from faults.test_workers import owned_run
from torch import Tensor

from pipeline.cams.gradient import GradCam
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe
from pipeline.results.verify import verify
from pipeline.run.dataflow import explain_on, stream_chunks
from pipeline.storage.local_store import LocalStore
from pipeline.storage.parts import progress
from pipeline.telemetry.events import Committed

pytestmark = pytest.mark.usefixtures("travels_whole")
CODES = {"error": "method_error", "memory": "out_of_memory", "device": None}


@dataclass(frozen=True)
class Failing(GradCam):
    """Grad-CAM that fails on every image; if that ends the worker, only once per image."""

    way: str = "error"
    marks: str = ""

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        if self.way == "error":
            raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED")
        if self.way == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        mark = Path(self.marks) / f"lost-{'-'.join(evidence.keys)}"
        if not mark.exists():
            mark.touch()
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        return super().__call__(evidence, probe)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", CODES)
def test_fifty_failures_of_one_method_cost_no_row_of_another(local_ray: None, tmp_path: Path, way: str) -> None:
    run = owned_run(tmp_path, scenes=50, chunk_images=1, methods=["hirescam", "gradcam"])
    spec = run.explainer_spec("cpu", 2)
    spec = replace(spec, methods={**spec.methods, "gradcam": Failing(way=way, marks=str(tmp_path))})
    events = stream_chunks(run, progress(run.store), 2, partial(explain_on, run.loaded.model, spec))
    assert sum(item.images for item in events if isinstance(item, Committed)) == 50
    folder = Path(run.store.url)
    assert check(folder, images=50, methods=2) == []
    assert verify(LocalStore(folder)).problems == []
    rows = pa.concat_tables(map(pq.read_table, folder.glob("*.parquet")))
    counts = Counter(zip(rows["method"].to_pylist(), rows["error_code"].to_pylist(), strict=True))
    assert counts == {("hirescam", None): 50, ("gradcam", CODES[way]): 50}
    assert len(list(tmp_path.glob("lost-*"))) == (50 if way == "device" else 0)
