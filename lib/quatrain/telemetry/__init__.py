"""What a process tells about itself: structured logs on stderr and Prometheus metrics."""
