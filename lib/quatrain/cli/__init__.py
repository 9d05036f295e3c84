"""The command line `quatrain`: a client of the API, and the switch of the local stack. Imports no torch.

stdout is data, stderr is progress and hints. Exit codes: `failures.py`.
"""
