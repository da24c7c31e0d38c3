"""Speed as ratios, measured side by side in one run: the engine, the methods and the peers."""
