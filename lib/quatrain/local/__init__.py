"""The local stack: where its state lies, and the processes that `quatrain up` starts."""
