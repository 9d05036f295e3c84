"""Speed of the whole local stack, and of TRL's PPO beside it. `python -m bench` prints one JSON object."""
