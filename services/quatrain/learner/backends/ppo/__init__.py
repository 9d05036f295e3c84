"""The PPO stage: `trainer` reads a batch (`rows`), computes what the step learns from (`signals`) and runs the epochs
(`updates`).
"""
