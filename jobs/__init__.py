"""The verbs of the command line, one file each; each also runs as `python -m jobs.NAME`."""
