"""Thresholds on a run for continuous integration: a file of checks, the measured values, and the verdicts."""
