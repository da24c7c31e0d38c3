"""What users choose: the run file, targets, preprocessing, and methods and metrics by name."""
