"""Prints the keys of a Redis, given its URL."""

import sys

import redis

print(redis.Redis.from_url(sys.argv[1]).keys("*"))
