"""Scenes whose parts can be taken out, and the exact Shapley value of each part: the truth that maps are judged by."""
