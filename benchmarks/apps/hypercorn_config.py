"""What hypercorn is not told on its command line: otherwise it ends an HTTP/2 connection after 1,000 requests."""

keep_alive_max_requests = 1_000_000_000
