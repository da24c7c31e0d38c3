"""Stores a run: places, parts, receipts, checksums, ownership and compaction."""
