"""Explanations show themselves in a notebook: pictures, a table, a figure, and a line while they take long."""

import base64
import io
import re
import sys
import time

import pytest
import torch
from nets import ToyNet, images
from PIL import Image

import pipeline
from pipeline.errors import ConfigError
from pipeline.explain.explanations import Explanations
from pipeline.explain.given_images import picture
from pipeline.explain.waiting import Reporting
from pipeline.maps.gallery import MOST_PICTURES, Page, Shown, chosen, html
from pipeline.model.counts import Counts

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{$", "a\x1b[2J")


def explained(count: int = 2, methods: tuple[str, ...] = ("gradcam", "layercam"), **options: object) -> Explanations:
    return pipeline.explain(ToyNet(0), images(0, count), methods=methods, layer="features.3", **options)  # type: ignore[arg-type]


def pictures(page: str) -> list[Image.Image]:
    return [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r"data:image/webp;base64,([\w+/=]+)", page)
    ]


def test_the_representation_is_one_short_line() -> None:
    text = repr(explained())
    assert re.fullmatch(r"<Explanations of 2 images by gradcam, layercam; layer features\.3, \d+ x \d+ cells>", text)
    assert "2 images, 4 targets" in repr(explained(targets=[[0, 1], [2, 3]]))


def test_a_notebook_shows_each_image_with_its_maps_and_the_targets() -> None:
    found = explained(targets=[1, 2], class_names=["cat", "dog", "eel", "fox"])
    page = found._repr_html_()
    shown = pictures(page)
    assert len(shown) == 2 * (1 + 2)
    assert all(max(one.size) <= 160 for one in shown)
    assert shown[0].tobytes() != shown[1].tobytes()
    cells = re.findall(r"<td>([^<]*)</td>", page)
    assert cells[:3] == ["0", "1", "dog"]
    assert cells[5:8] == ["1", "2", "eel"]
    assert float(cells[3]) == pytest.approx(float(found.evidence.target_confidences_B[0]), abs=1e-3)


def test_many_images_stay_a_small_page() -> None:
    page = explained(40)._repr_html_()
    assert len(pictures(page)) == MOST_PICTURES // 2 * 3
    assert "shown: 8 of 40 images; 8 more rows" in page
    assert len(page) < 300_000
    assert chosen(100, [f"m{i}" for i in range(12)]) == (
        2,
        [f"m{i}" for i in range(8)],
        "shown: 2 of 100 images, 8 of 12 methods",
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str) -> None:
    shown = Shown(name, name, Image.new("RGB", (9, 9)), {name: torch.eye(3).numpy()})
    names = [name + end for end in "0123"]
    page = html(Page(name, [shown], name, [name], [[name]])) + explained(class_names=names)._repr_html_()
    assert "<script" not in page
    assert not re.search(r"<img src=x", page)
    assert re.search(r'<img alt="[^"]*" src="data:', page)


def test_constant_maps_are_named() -> None:
    pixels_BCHW = images(0, 2)
    pixels_BCHW[1] = torch.nan
    found = pipeline.explain(ToyNet(0), pixels_BCHW, layer="features.3")
    assert "constant maps" in found._repr_html_()
    assert "constant maps" not in explained()._repr_html_()


def test_raw_outputs_have_no_confidence() -> None:
    assert "<td>-</td>" in explained(outputs="raw")._repr_html_()


def test_plot_draws_a_figure_and_refuses_unknown_names() -> None:
    pytest.importorskip("matplotlib")
    found = explained(3, class_names=HOSTILE)
    assert len(found.plot().axes) == 3 * 3
    drawn = found.plot(rows=[2], methods=["layercam"])
    assert [axis.get_title() for axis in drawn.axes][1] == "layercam"
    drawn.savefig(io.BytesIO())
    with pytest.raises(ConfigError, match="count from 0 to 2"):
        found.plot(rows=[3])
    with pytest.raises(ConfigError, match="are not rows"):
        found.plot(rows=[])
    with pytest.raises(ConfigError, match="did you mean 'gradcam'"):
        found.plot(methods=["gradcm"])


def test_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"matplotlib is not installed \(run pip install 'camatlas\[plot\]'\)"):
        explained().plot()


def test_unknown_names_give_the_nearest_one() -> None:
    found = explained()
    with pytest.raises(ConfigError, match="did you mean 'gradcam'"):
        explained().heatmap("gradcm")
    with pytest.raises(ConfigError, match="did you mean 'gradcam'"):
        explained(methods=("gradcm",))
    with pytest.raises(ConfigError, match="did you mean 'insertion'"):
        pipeline.evaluate(found.probe.model, images(0, 2), found, metrics=["insertoin"])


def test_the_picture_undoes_the_normalisation() -> None:
    image_CHW = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    pixels_CHW = (image_CHW - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(torch.from_numpy(picture(pixels_CHW, mean, std)).permute(2, 0, 1), image_CHW)
    other = picture(100 * pixels_CHW, mean, std)
    assert (other.min(), other.max()) == (0, 1)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_work_is_reported_on_a_terminal_with_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, terminal = Counts(forwards=5), Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("pipeline.explain.waiting._INTERVAL_SECONDS", 0.01)
    with Reporting("explaining 2 images", counts, delay=0):
        counts.forwards += 1234
        deadline = time.monotonic() + 30
        while "1,234 passes" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "\rexplaining 2 images: 1,234 passes, 0 s" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


def test_short_work_and_other_streams_stay_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, delay in ((Terminal(), 60.0), (io.StringIO(), 0.0)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Reporting("explaining", Counts(), delay=delay):
            pass
        assert stream.getvalue() == ""
