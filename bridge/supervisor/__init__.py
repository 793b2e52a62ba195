"""Everything that knows processes, signals, sockets to bind and command lines."""
