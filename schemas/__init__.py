"""The data contracts of a run: its parts, manifest, compaction record and table of sanity checks."""
