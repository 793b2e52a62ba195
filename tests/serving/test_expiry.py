"""When certificates end, read from their bytes."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import trustme

from bridge.config import Config
from bridge.serving.expiry import expiries, not_after


@pytest.mark.parametrize("year", [2031, 2049, 2050, 2099])
def test_the_end_is_read_in_both_forms_of_a_time(tmp_path: Path, year: int) -> None:
    end = datetime.datetime(year, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    path = tmp_path / "cert.pem"
    trustme.CA().issue_cert("a.example", not_after=end).cert_chain_pems[0].write_to_path(path)
    config = Config(ssl_certfile=str(path), ssl_keyfile=str(path), ssl_sni=(("b.example", str(path), ""),))
    assert expiries(config) == {"*": int(end.timestamp()), "b.example": int(end.timestamp())}


def test_what_is_no_certificate_has_no_end(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    for text in ("", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----"):
        path.write_text(text)
        assert expiries(Config(ssl_certfile=str(path))) == {}
    assert expiries(Config(ssl_certfile=str(tmp_path / "none"))) == {}


@pytest.mark.parametrize("size", range(0, 200, 7))
def test_a_certificate_that_is_cut_is_refused(size: int) -> None:
    import ssl

    whole = ssl.PEM_cert_to_DER_cert(trustme.CA().issue_cert("a.example").cert_chain_pems[0].bytes().decode())
    with pytest.raises(ValueError, match="missing"):
        not_after(whole[:size])
