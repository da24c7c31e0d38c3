"""The bundled demonstration: photograph-like scenes made on the spot, and a small network trained on them.

One class carries a planted watermark. The network has learnt it, and the maps of that class show it.
"""
