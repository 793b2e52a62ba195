"""Side-by-side measurements of bridge and other servers: CPU time per request, rate, latency, memory, start-up.

``python -m benchmarks --help`` tells what can be run; ``docs/benchmarks/`` has the newest figures. Of bridge alone:
``benchmarks.profile`` shows where the time goes, ``benchmarks.instructions`` counts the processor's instructions, and
``benchmarks.walk`` the calls of functions.
"""
