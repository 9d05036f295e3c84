"""The telemetry of a process: structured logs on stderr and Prometheus metrics."""
