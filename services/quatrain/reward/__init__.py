"""The reward service: scores completions with reward models, reward functions or another reward service."""
