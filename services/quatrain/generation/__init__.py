"""Generation service: samples completions from a named policy version."""
