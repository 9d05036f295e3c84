"""One owned job in memory: its log under this epoch, its waits, and the seal."""
