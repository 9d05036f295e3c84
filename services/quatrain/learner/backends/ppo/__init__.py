"""The PPO stage: `trainer` reads a batch (`rows`), computes what the step learns from (`signals`) and runs the epochs
(`updates`). All that is V stands in `critic`, what these share in `step`.
"""
