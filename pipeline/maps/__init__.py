"""Handles saliency maps: the stored encoding, heat maps, similarity and pictures."""
