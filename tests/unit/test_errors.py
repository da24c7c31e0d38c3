"""The exception tree: exit codes, collecting, travelling between processes, and near names."""

import pickle

import pytest

from pipeline.errors import (
    CamatlasError,
    ConfigError,
    DamagedRunError,
    LayerError,
    Mistake,
    Mistakes,
    StalledError,
    StoreError,
    first_line,
    masked,
    nearest,
)

EXIT_CODES = {
    CamatlasError: 1,
    ConfigError: 2,
    LayerError: 2,
    DamagedRunError: 4,
    StoreError: 5,
    StalledError: 1,
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
def test_an_error_survives_the_way_between_processes(kind: type[CamatlasError], protocol: int) -> None:
    error = made(kind)
    arrived = pickle.loads(pickle.dumps(error, protocol))
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
    assert arrived.exit_code == error.exit_code


@pytest.mark.parametrize("kind", [ConfigError, LayerError])
def test_wrong_input_is_a_value_error_for_callers_in_python(kind: type[CamatlasError]) -> None:
    assert issubclass(kind, ValueError)


def test_a_mistake_says_where_what_and_a_hint() -> None:
    assert str(Mistake("a.b", "is wrong")) == "a.b: is wrong"
    assert str(Mistake("a.b", "is wrong", "try c")) == "a.b: is wrong (try c)"


def test_a_config_error_tells_every_mistake_on_its_own_line() -> None:
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


def test_nearest_names_the_one_that_was_meant() -> None:
    assert nearest("gradcan", ["scorecam", "gradcam"]) == "did you mean 'gradcam'?"


def test_nearest_lists_what_is_known_when_nothing_is_near() -> None:
    assert nearest("zzz", ["b", "a"]) == "known: a, b"


def test_nearest_lists_no_more_names_than_people_read() -> None:
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
    told = [
        masked(text),
        str(CamatlasError(text)),
        str(ConfigError.one("data.shards", text)),
        first_line(OSError(text)),
    ]
    told += [str(pickle.loads(pickle.dumps(StoreError(text))))]
    assert not [secret for secret in SECRETS for line in told if secret in line], told
    assert all("***" in line for line in told)


@pytest.mark.parametrize(
    "text",
    [
        "cannot read s3://bucket/shard-000.tar: no such key",
        "data.shards: '/home/me@work/x.tar' matches nothing",
        "a key stood earlier in this shard; members of one key must be adjacent",
        "unknown parameter 'tokens' (did you mean 'steps'?)",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text
