"""The checks of a run that need neither torch nor Ray; they are made first, while torch is imported."""

from dataclasses import dataclass

from pipeline.data.inputs import decode_limits, shards_of
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources import Shard
from pipeline.data.sources.key_list import KeyList, read_keys
from pipeline.errors import Mistakes
from pipeline.run.surroundings import check_output, check_working_folder
from pipeline.settings.run_file import RunConfig
from pipeline.storage.base import Store
from pipeline.storage.store import open_store


@dataclass(frozen=True)
class Survey:
    """What a run file names, as far as it could be found: what is missing was collected as a mistake."""

    shards: tuple[Shard, ...] = ()
    limits: DecodeLimits | None = None
    store: Store | None = None
    keys: KeyList | None = None

    def checked(self) -> tuple[DecodeLimits, Store]:
        """Return the limits and the store of a survey without mistakes."""
        assert self.limits is not None
        assert self.store is not None
        return self.limits, self.store


def survey(config: RunConfig, mistakes: Mistakes) -> Survey:
    """Look at the working folder, the shards, the settings of decoding and the output; nothing is written.

    Args:
        config: the run file; after earlier mistakes it may hold empty stand-ins, which are not checked.
        mistakes: collects the mistakes.
    """
    shards: list[Shard] = []
    limits: DecodeLimits | None = None
    store: Store | None = None
    keys: KeyList | None = None
    with mistakes.collecting():
        check_working_folder()
    with mistakes.collecting():
        shards = shards_of(config.data)
    with mistakes.collecting():
        limits = decode_limits(config)
    with mistakes.collecting():
        keys = read_keys(config.data.keys)
    if config.output.path:
        with mistakes.collecting():
            check_output(config.output.path, config.data.shards or (), shards)
        with mistakes.collecting():
            store = open_store(config.output.path)
            store.check_writable()
    return Survey(tuple(shards), limits, store, keys)
