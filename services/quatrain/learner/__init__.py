"""The learner service: trains one stage (SFT, reward model, PPO) of one job at a time for the owner of its token."""
