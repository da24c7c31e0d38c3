"""Stores a run: local and object stores, parts, receipts, checksums, ownership and compaction."""
