"""Encodes and decodes saliency maps, and turns them into heat maps, similarities and pictures."""
