"""What all versions of HTTP have in common (RFC 9110), as pure functions and values."""
