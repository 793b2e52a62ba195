"""What the applications answer, known to both sides of a run; imports nothing, so that start-up figures stay honest."""

PLAINTEXT = b"Hello, World!"
TEN_KILOBYTES = b"0123456789" * 1024
CHUNK = b"x" * 65536
CHUNKS = 16
UPLOAD_SIZE = 65536  # bytes
DELAY = 0.01  # seconds
