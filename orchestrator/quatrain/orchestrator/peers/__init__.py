"""The services that a job calls: clients of the stateless ones, sessions of learners."""
