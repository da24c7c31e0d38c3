"""Judges metrics on drawn scenes whose truth is exact: how far each one orders maps as the truth does."""
