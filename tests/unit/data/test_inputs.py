"""Rules of decoding from a run file: what contradicts itself is refused, and identities hold only what was set."""

from pathlib import Path
from typing import Any

import pytest
from decoders import write_module
from runfiles import SMALLEST

from pipeline.data.formats import FORMATS
from pipeline.data.inputs import decode_limits, decoding_identity, image_suffixes, limits_of
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.errors import ConfigError
from pipeline.settings.run_file import RunConfig, parse_config


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path)
    monkeypatch.chdir(tmp_path)


def config_of(preprocess: object = "default", **data: Any) -> RunConfig:
    raw = {**SMALLEST, "data": {**SMALLEST["data"], **data}, "model": {**SMALLEST["model"], "preprocess": preprocess}}
    config, mistakes = parse_config(raw)
    assert mistakes == []
    return config


def channels(count: int) -> dict[str, Any]:
    return {"channels": count, "mean": [0.5] * count, "std": [0.5] * count}


def mistakes_in(config: RunConfig) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        decode_limits(config)
    return {mistake.where: str(mistake) for mistake in caught.value.mistakes}


def test_the_identity_of_old_settings_has_no_new_field() -> None:
    config = config_of(formats=["png", "jpeg"])
    assert decoding_identity(config.data, decode_limits(config)) == {
        "formats": ["JPEG", "PNG"],
        "max_pixels": 64_000_000,
    }


def test_what_is_set_enters_the_identity_and_comes_back_from_it() -> None:
    config = config_of(channels(6), window=[0, 4095], decoder="my_formats:npy", suffixes=["npy"])
    limits = decode_limits(config)
    assert limits.decoder is not None
    identity = decoding_identity(config.data, limits)
    assert identity["decoder"] == {"name": "my_formats:npy", "source": limits.decoder.digest}
    assert (identity["window"], identity["suffixes"], len(limits.decoder.digest)) == ((0, 4095), ["npy"], 16)
    assert limits_of(identity | {"window": [0.0, 4095.0]}) == limits
    assert limits_of({"formats": ["JPEG"], "max_pixels": 9}) == DecodeLimits(("JPEG",), 9)


@pytest.mark.parametrize("count", [2, 4, 6])
def test_image_files_give_one_or_three_channels(count: int) -> None:
    found = mistakes_in(config_of(channels(count)))
    assert f"is required where model.preprocess.channels is {count}" in found["data.decoder"]
    decode_limits(config_of(channels(count), decoder="my_formats:npy"))


@pytest.mark.parametrize("count", [1, 3])
def test_grey_and_rgb_need_no_decoder(count: int) -> None:
    assert decode_limits(config_of(channels(count))) == DecodeLimits()


def test_formats_have_no_effect_with_a_decoder() -> None:
    assert "no effect" in mistakes_in(config_of(decoder="my_formats:npy", formats=["TIFF"]))["data.formats"]


def test_all_mistakes_are_reported_at_once() -> None:
    found = mistakes_in(config_of(decoder="my_formats:npi", formats=["JPG", "TIFF"]))
    assert set(found) == {"data.formats", "data.decoder"}
    assert "did you mean" in found["data.decoder"]


def test_an_unknown_format_is_refused_with_the_nearest() -> None:
    assert "did you mean 'JPEG'" in mistakes_in(config_of(formats=["JPG"]))["data.formats"]
    assert decode_limits(config_of(formats=[*map(str.lower, FORMATS)])).formats == FORMATS


def test_suffixes_of_images() -> None:
    assert image_suffixes(config_of().data) == IMAGE_SUFFIXES
    assert image_suffixes(config_of(decoder="my_formats:npy").data) == (), "any member that is not an annotation"
    assert image_suffixes(config_of(decoder="my_formats:npy", suffixes=["DCM"]).data) == ("dcm",)
