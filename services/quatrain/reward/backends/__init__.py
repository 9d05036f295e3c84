"""What a score can come from: reward models, reward functions, another reward service, and a fake."""
