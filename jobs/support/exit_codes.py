"""The exit codes of all verbs, with their meaning; the reference of the documentation lists them."""

EXIT_CODES = {
    0: "success",
    1: "anything else",
    2: "usage error, or a mistake in the run file",
    3: "more failed images than `--max-failure-rate` allows",
    4: "the run is damaged or not verified",
    5: "the store cannot be reached",
    6: "a check of `camatlas check` failed",
    130: "stopped by Ctrl-C",
    143: "stopped by SIGTERM",
}
