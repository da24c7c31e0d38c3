"""A local, read-only server that shows a run: images with their maps, filters, histograms, classes and two runs."""
