"""The serving side: from a configuration to a gRPC server that checks callers and answers errors as statuses."""
