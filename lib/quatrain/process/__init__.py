"""The parts of every process of Quatrain: configuration and logs, a watched event loop, a thread for a model."""
