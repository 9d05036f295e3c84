"""Turns a spec into a job: checks everything before queueing, pins every input by content, writes spec.json."""
