"""gRPC as Quatrain uses it: server bootstrap, channels, target pools, errors, heartbeats, tensors, model thread."""
