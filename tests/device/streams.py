"""Streams and events of the simulated device."""


class Stream:
    """Stands for streams and events: all that is launched on the simulated device has ended at once."""

    def __init__(self, *_: object) -> None:
        pass

    def wait_event(self, _: object) -> None:
        pass

    def record(self) -> None:
        pass

    def query(self) -> bool:
        return True
