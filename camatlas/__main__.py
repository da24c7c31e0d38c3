"""The command `camatlas`, also as `python -m camatlas`."""

import sys

from camatlas import _refuse_shadowed_packages


def main() -> None:
    """Run the command line."""
    try:
        _refuse_shadowed_packages()
    except ImportError as error:
        sys.exit(f"error: {error}")
    from jobs.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
