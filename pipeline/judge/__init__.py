"""Metrics judged on drawn scenes with exact truth: the record of their reliability, and its tables."""
