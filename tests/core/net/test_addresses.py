"""What is an IP address and what is not."""

from __future__ import annotations

import pytest

from bridge.core.net.addresses import is_valid_ip


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "2001:db8::7",
        "::ffff:192.0.2.1",
        "ABCD:EF01:2345:6789:ABCD:EF01:2345:6789",
    ],
)
def test_an_address(ip: str) -> None:
    assert is_valid_ip(ip)


@pytest.mark.parametrize(
    "ip",
    [
        *("", " ", "\n", "\x00", "127.0.0.1\x00", " 127.0.0.1", "127.0.0.1 ", "127.0.0.1\n", "localhost", "4.4.4.4<"),
        *(
            "127.0.0",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "127.0.0.01",
            "256.0.0.1",
            "1.2.3.4.5",
            "1.2.3.4/8",
            "127.0.0.1:80",
        ),
        *(
            "[::1]",
            "::1%lo",
            "fe80::1%eth0",
            ":",
            ":::",
            "1::2::3",
            "g::",
            "::1/64",
            "a" * 100,
            "1" * 5000,
            "\u0661.0.0.1",
            "é",
        ),
    ],
)
def test_no_address(ip: str) -> None:
    assert not is_valid_ip(ip)
