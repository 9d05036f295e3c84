"""Reference service: logprobs of given tokens under a frozen model."""
