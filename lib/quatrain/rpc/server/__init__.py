"""The serving side: a gRPC server, made from a configuration, that checks callers and answers errors as statuses."""
