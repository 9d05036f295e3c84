"""What every process of Quatrain is: configuration and logs, an event loop that is watched, a thread for a model."""
