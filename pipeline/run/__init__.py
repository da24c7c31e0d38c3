"""Carries out a run: preflight, the Ray Data graph, workers, attempts and the cluster."""
