"""Reports what a run does: events, timers, Prometheus counters and the bottleneck."""
