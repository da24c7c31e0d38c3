"""The audit report: facts computed from a run, and one HTML page rendered from them."""
