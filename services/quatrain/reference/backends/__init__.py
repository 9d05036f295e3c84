"""What computes reference logprobs, behind one small protocol."""
