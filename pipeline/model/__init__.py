"""Loads a model safely, chooses its target layer, captures activations and gradients, and scores masked images."""
