"""The process that runs one reward function. It imports the standard library and the function's module only."""
