"""Real servers for tests: they come as wheels, are started by the test run, and end with it."""
