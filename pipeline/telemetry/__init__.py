"""Reports the progress of a run: events, timers, Prometheus counters and the bottleneck."""
