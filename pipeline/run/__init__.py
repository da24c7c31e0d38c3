"""Runs an explanation job: preflight, the Ray Data graph, workers, attempts and the cluster."""
