"""Benchmarks of the engine, the methods and the peer libraries, as ratios of cases timed in turn in one run."""
