"""The three stages of a job, each a function that goes on from wherever the log says."""
