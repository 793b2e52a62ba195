"""Operating a server: its probes, metrics and commands, over HTTP, beside the port of the application."""
