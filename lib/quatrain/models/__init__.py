"""Loading Hugging Face models and computing with them on ragged batches.

Used by every service that holds a model (generation, reference, reward, learner); imports torch. All padding is on the
right: a causal model then needs no attention mask for its real tokens, position ids count real tokens only, and a row's
numbers do not depend on the padding. Rows are bounded by their lengths, never by a pad id.

Shape suffixes: B rows, T positions, N completion tokens of a batch one after the other, D hidden width, V vocabulary.
"""
