"""A mutation fuzzer for everything that reads bytes from outside: ``python -m fuzz``, or ``make fuzz``."""
