"""The audit report: facts from a run, and one HTML page rendered from them."""
