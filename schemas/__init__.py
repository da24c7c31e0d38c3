"""The two data contracts of a run: the Arrow schema of a part and the run's manifest."""
