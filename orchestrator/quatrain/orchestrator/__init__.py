"""Owns jobs: the public API, the job loop, and the rollout worker beside it."""
