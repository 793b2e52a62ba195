"""Side-by-side measurements of bridge and other servers: CPU time per request, rate, latency, memory, start-up.

``python -m benchmarks --help`` tells what can be run; ``docs/benchmarks/`` has the newest figures.
"""
