"""The rollout worker: generates, scores and compares samples for any job of its pool; holds nothing."""
