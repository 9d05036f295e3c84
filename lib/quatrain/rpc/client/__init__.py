"""The calling side: from a target to channels, and from channels to pools that know which replica can be called."""
