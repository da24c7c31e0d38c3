"""A notebook whose last line is `explanations` shows pictures: executed by Jupyter's own client."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
CELLS = (
    """
import sys
sys.path[:0] = [ROOT, ROOT + "/tests"]
import camatlas
from nets import ToyNet, images
explanations = camatlas.explain(ToyNet(0), images(0, 2), methods=["gradcam", "layercam"], layer="features.3")
explanations
""",
    "explanations.plot()",
    "[name for name in dir(camatlas) if name.startswith('ex')]",
)


@pytest.mark.slow
def test_the_last_line_of_a_cell_shows_pictures() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"ROOT = {str(ROOT)!r}\n{CELLS[0]}")])
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in CELLS[1:]]
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    shown, drawn, names = (cell.outputs[-1]["data"] for cell in notebook.cells)
    assert shown["text/html"].count("data:image/webp;base64,") == 2 * 3
    assert shown["text/plain"].startswith("<Explanations of 2 images by gradcam, layercam")
    assert "image/png" in drawn
    assert names["text/plain"] == "['explain']"
