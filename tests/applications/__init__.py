"""Applications in real frameworks, for the tests that serve them with the command."""
