"""HTTP/1.x messages as pure functions from bytes to values: no I/O, no clock, no logging."""
