"""Reads datasets: sources of encoded images, official archives, decoding, packing into shards."""
