"""Object storage: one small protocol, three implementations (S3, local folder, memory), one conformance suite.

Everything durable is an object: the event log, sealed batches, models, checkpoints. The job log depends on
`put_if_absent`, which is why `probe_store` tests it at start and refuses a store that does not keep its promise.
"""

from quatrain.storage.opening import open_store
from quatrain.storage.probe import probe_store
from quatrain.storage.protocol import ObjectStat, ObjectStore

__all__ = ["ObjectStat", "ObjectStore", "open_store", "probe_store"]
