import torch

# The models and batches here are too small to share among threads, which would only wait for each other.
torch.set_num_threads(1)
