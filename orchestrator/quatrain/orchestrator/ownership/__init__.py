"""Who works on a job: jobs get owners, owners obey intents, and what breaks is recorded."""
