"""The bundled demonstration: synthetic photograph-like scenes, and a small network trained on them.

All images of one class carry a watermark. The network has learnt to rely on it, and the maps of that class show this.
"""
