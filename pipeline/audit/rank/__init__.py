"""Ranks of methods over finished runs: mean ranks by metric and by family of metrics, and how far metrics agree."""
