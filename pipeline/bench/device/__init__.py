"""Checks and measures one device, without Ray and in minutes: for the day that a GPU is at hand, rehearsed on a CPU."""
