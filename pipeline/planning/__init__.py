"""Estimates a run before it starts: forwards, hours and bytes, from a dry run on a few images."""
