"""One serving process: sockets, certificates, the event loop, the server in it."""
