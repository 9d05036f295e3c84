"""The mathematics of SFT, reward modelling and PPO: tensors in, tensors out.

Pure functions: no input or output, no clock, no logging, no configuration, and no randomness that is not an argument.
Nothing here imports another part of Quatrain. `scores`, `schedules`, `permutation` and `evaluation` need no torch.

Shape suffixes: B sequences, T completion positions (padded on the right), V vocabulary. A mask_BT is boolean and true
where t < length_b; masked positions may hold anything, NaN included, without an effect.
"""
