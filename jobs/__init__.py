"""The verbs of the command line, one file each. Each also runs as `python -m jobs.NAME`."""
