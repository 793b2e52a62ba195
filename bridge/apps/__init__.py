"""Applications: import one, tell which interface it speaks, start and stop it."""
