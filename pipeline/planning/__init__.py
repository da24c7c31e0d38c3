"""Estimates the forward passes, hours and bytes of a run before it starts, from a dry run on a few images."""
