"""The exceptions: exit codes, collecting mistakes, pickling, suggested names, and masked secrets."""

import pickle

import pytest

from pipeline.errors import (
    CamatlasError,
    ConfigError,
    DamagedRunError,
    DeviceFailedError,
    LayerError,
    Mistake,
    Mistakes,
    PluginError,
    StalledError,
    StoreError,
    UnknownLayerError,
    first_line,
    masked,
    nearest,
)
from pipeline.viewer.visit import NotFoundError

EXIT_CODES = {
    CamatlasError: 1,
    ConfigError: 2,
    PluginError: 2,
    LayerError: 2,
    UnknownLayerError: 2,
    NotFoundError: 2,
    DamagedRunError: 4,
    StoreError: 5,
    StalledError: 1,
    DeviceFailedError: 1,
}


def every_error() -> set[type[CamatlasError]]:
    found, waiting = set(), [CamatlasError]
    while waiting:
        kind = waiting.pop()
        found.add(kind)
        waiting += kind.__subclasses__()
    return found


def made(kind: type[CamatlasError]) -> CamatlasError:
    if issubclass(kind, ConfigError):
        return kind(
            [Mistake("data.shards", "is required"), Mistake("model.nam", "unknown key", "did you mean 'name'?")]
        )
    return kind("what happened, where")


def test_every_error_has_its_exit_code() -> None:
    assert {kind: kind.exit_code for kind in every_error()} == EXIT_CODES


@pytest.mark.parametrize("kind", EXIT_CODES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(kind: type[CamatlasError], protocol: int) -> None:
    error = made(kind)
    arrived = pickle.loads(pickle.dumps(error, protocol))
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
    assert arrived.exit_code == error.exit_code


@pytest.mark.parametrize("kind", [ConfigError, LayerError])
def test_errors_of_wrong_input_are_value_errors(kind: type[CamatlasError]) -> None:
    assert issubclass(kind, ValueError)


def test_a_mistake_has_a_place_a_problem_and_a_hint() -> None:
    assert str(Mistake("a.b", "is wrong")) == "a.b: is wrong"
    assert str(Mistake("a.b", "is wrong", "try c")) == "a.b: is wrong (try c)"


def test_a_config_error_has_one_line_per_mistake() -> None:
    error = ConfigError([Mistake("a", "is wrong"), Mistake("b", "is too")])
    assert str(error) == "a: is wrong\nb: is too"
    assert str(ConfigError.one("a", "is wrong", "try c")) == "a: is wrong (try c)"


def test_mistakes_of_several_checks_are_raised_together_and_once() -> None:
    mistakes = Mistakes()
    for where in ("a", "b", "a"):
        with mistakes.collecting():
            raise ConfigError.one(where, "is wrong")
    with pytest.raises(ConfigError) as caught:
        mistakes.raise_if_any()
    assert caught.value.mistakes == (Mistake("a", "is wrong"), Mistake("b", "is wrong"))


def test_only_mistakes_are_collected() -> None:
    mistakes = Mistakes()
    with pytest.raises(StoreError), mistakes.collecting():
        raise StoreError("gone")
    assert mistakes.found == []


def test_a_check_without_mistakes_raises_nothing() -> None:
    mistakes = Mistakes()
    with mistakes.collecting():
        pass
    mistakes.raise_if_any()
    assert not mistakes.found


def test_nearest_suggests_the_closest_name() -> None:
    assert nearest("gradcan", ["scorecam", "gradcam"]) == "did you mean 'gradcam'?"


def test_nearest_lists_the_known_names_when_none_is_close() -> None:
    assert nearest("zzz", ["b", "a"]) == "known: a, b"


def test_nearest_does_not_list_very_many_names() -> None:
    assert nearest("zzz", [f"name{i}" for i in range(40)]).startswith("known: ")
    assert nearest("zzz", [f"name{i}" for i in range(41)]) == ""


def test_first_line_is_one_short_line() -> None:
    assert first_line(ValueError("a\n  b\tc")) == "ValueError: a b c"
    assert len(first_line(ValueError("x" * 1000))) == 300


SECRETS = ("AKIAsecret1", "hunter-2", "tok3n", "s1gnature", "pass4word")
PLANTED = (
    "s3://AKIAsecret1:hunter-2@bucket/run",
    "https://host/x?X-Amz-Credential=AKIAsecret1%2F2026&X-Amz-Signature=s1gnature&part=3",
    "az://c/x?sv=2&sig=s1gnature&se=9",
    "AWS_SECRET_ACCESS_KEY=hunter-2 and aws_access_key_id: AKIAsecret1",
    """{"token": "tok3n", 'password': 'pass4word'}""",
    "api_key=tok3n; apikey='tok3n'",
)


@pytest.mark.parametrize("text", PLANTED)
def test_secrets_are_masked_in_every_error(text: str) -> None:
    lines = [
        masked(text),
        str(CamatlasError(text)),
        str(ConfigError.one("data.shards", text)),
        first_line(OSError(text)),
    ]
    lines += [str(pickle.loads(pickle.dumps(StoreError(text))))]
    assert not [secret for secret in SECRETS for line in lines if secret in line], lines
    assert all("***" in line for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        "cannot read s3://bucket/shard-000.tar: no such key",
        "data.shards: '/home/me@work/x.tar' matches nothing",
        "a key stood earlier in this shard; members of one key must be adjacent",
        "unknown parameter 'tokens' (did you mean 'steps'?)",
    ],
)
def test_text_without_a_secret_is_not_masked(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("text", ["x" * 200_000, "key-" * 50_000, "a" * 100_000 + "://", "token" * 20_000])
def test_long_hostile_text_is_masked_in_linear_time(text: str) -> None:
    """A name of 10,000 letters once took seconds, in which a server answers nobody."""
    assert masked(text) == text


def test_a_long_word_before_a_secret_is_kept() -> None:
    assert masked(f"{'a' * 500}_token_{'b' * 50}=hidden") == f"{'a' * 500}_token_{'b' * 50}=***"
