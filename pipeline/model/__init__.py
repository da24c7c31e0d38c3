"""The model: loading it safely, choosing its target layer, looking inside it, and scoring masked images."""
