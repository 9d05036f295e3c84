"""Who works on a job: jobs get owners, owners apply intents, and failures are recorded."""
