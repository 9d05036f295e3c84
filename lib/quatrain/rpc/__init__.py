"""gRPC as Quatrain uses it: server bootstrap, channels, target pools, errors, heartbeats, tensors, model thread."""

import os

# gRPC's core reads these once, when it is first imported. Its messages about ended connections only repeat our own
# logs; its fork handlers are for programs that fork, which none of ours does.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
