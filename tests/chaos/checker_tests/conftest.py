"""The histories are made once in a session."""

from tests.chaos.checker_tests.histories import stories

__all__ = ["stories"]
