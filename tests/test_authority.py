"""The local authority of ``bridge dev --https``: made once, kept, for nobody else to read."""

from __future__ import annotations

import datetime
import os
import shutil
import ssl
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from bridge.authority import certificate_for
from bridge.dev import development_words
from bridge.errors import ConfigError
from tests.support.running import Running

APPLICATION = """\
def app(environ, start_response):
    start_response("200 OK", [])
    return [environ["wsgi.url_scheme"].encode()]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "app.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture
def library() -> None:
    pytest.importorskip("trustme", reason="trustme is not installed (extra https)")


def make(*hosts: str) -> tuple[Path, Path]:
    made = certificate_for(hosts or ("127.0.0.1",), os.environ)
    return Path(made.file), Path(made.authority)


def fits(file: Path, authority: Path, name: str) -> bool:
    """Tell whether a client that trusts *authority* takes the certificate in *file* for *name*."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(file)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client_context = ssl.create_default_context(cafile=authority)
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return client.version() is not None


@pytest.mark.usefixtures("library")
def test_the_authority_is_kept(place: Path) -> None:
    file, authority = make()
    assert file.is_relative_to(place / "data" / "bridge" / "https")
    before = authority.read_bytes()
    other, again = make("127.0.0.1", "app.test")
    assert (again, again.read_bytes()) == (authority, before)
    assert other != file
    assert make()[0] == file
    for name in ("localhost", "127.0.0.1", "::1"):
        assert fits(file, authority, name)
        assert fits(other, authority, name)
    assert not fits(file, authority, "app.test")
    assert fits(other, authority, "app.test")


@pytest.mark.usefixtures("library")
def test_only_the_user_reads_the_keys(place: Path) -> None:
    file, authority = make()
    directory = authority.parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {path.name for path in directory.iterdir()} == {"authority.pem", "authority-key.pem", file.name}
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"PRIVATE" not in authority.read_bytes()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "*"])
def test_all_interfaces_stand_for_the_names_of_this_machine(
    place: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "box-7.test")
    file, authority = make(host)
    assert fits(file, authority, "box-7.test")
    monkeypatch.setattr("socket.gethostname", lambda: "no_name")
    assert fits(*make(host), "localhost")


@pytest.mark.usefixtures("library")
def test_a_key_that_others_can_read(place: Path) -> None:
    key = make()[1].with_name("authority-key.pem")
    key.chmod(0o640)
    with pytest.raises(ConfigError, match=r"authority-key.pem: .*others can read it; remove .*https, and a new"):
        make()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("days", [(-30, -1), (1, 30)])
def test_an_authority_whose_time_it_is_not(place: Path, days: tuple[int, int]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    path = make()[1].with_name("authority-key.pem")
    content = path.read_bytes()
    key = load_pem_private_key(content, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    old = x509.load_pem_x509_certificate(content[content.index(b"-----BEGIN CERT") :])
    begin, end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=number) for number in days)
    new = x509.CertificateBuilder(
        old.issuer, old.subject, key.public_key(), old.serial_number, begin, end, list(old.extensions)
    )
    path.write_bytes(content[: content.index(b"-----BEGIN CERT")] + new.sign(key, SHA256()).public_bytes(Encoding.PEM))
    with pytest.raises(ConfigError, match=r"authority-key.pem: it is good from 20.* and not today; remove "):
        make()


@pytest.mark.usefixtures("library")
def test_a_key_that_is_another_authority_s(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = b"-----BEGIN CERTIFICATE"
    path = make()[1].with_name("authority-key.pem")
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "other"))
    other = make()[1].with_name("authority-key.pem")
    other.write_bytes(other.read_bytes().partition(mark)[0] + mark + path.read_bytes().partition(mark)[2])
    with pytest.raises(ConfigError, match="this is no authority: the key is another certificate's"):
        make()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff"])
def test_what_is_no_authority(place: Path, content: bytes) -> None:
    make()[1].with_name("authority-key.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=r"authority-key.pem: this is no authority: .*; remove "):
        make()


@pytest.mark.usefixtures("library")
def test_a_directory_that_cannot_be_made(place: Path) -> None:
    (place / "data").write_text("")
    with pytest.raises(ConfigError, match=r"--https: .*data.*: Not a directory"):
        make()


@pytest.mark.usefixtures("library")
def test_a_name_that_no_certificate_can_have(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"--https: .*a_b: no certificate can have these names"):
        make("a_b")


def test_without_the_library(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ConfigError, match="--https: needs the package trustme: pip install trustme"):
        development_words(["--https", "app:app"], {})
    assert not (place / "data").exists()


@pytest.mark.parametrize("option", ["--ssl-certfile", "--keyfile", "--ssl-context-factory"])
def test_another_certificate(place: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=f"--https and {option}: "):
        development_words(["--https", "app:app", option, "a:b"], {})


@pytest.mark.slow
@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("more", [["--no-reload"], ["--workers", "2", "--no-reload"], ["--reload"]], ids=" ".join)
def test_it_is_served(place: Path, more: list[str]) -> None:
    if "--reload" in more:
        pytest.importorskip("watchfiles", reason="watchfiles is not installed (extra reload)")
    command = [sys.executable, "-m", "bridge", "dev", "--https", "--port", "0", *more]
    with Running(command=command, cwd=place) as server:
        _, port = server.address()
        authority = place / "data" / "bridge" / "https" / "authority.pem"
        assert f"trust the authority of this machine: {authority}\n" in server.messages.text
        context = ssl.create_default_context(cafile=authority)
        with urllib.request.urlopen(f"https://localhost:{port}/", timeout=60, context=context) as answer:
            assert answer.read() == b"https"
        assert server.end() == 0


@pytest.mark.slow
@pytest.mark.usefixtures("library")
def test_two_that_start_at_once_share_one_authority(place: Path) -> None:
    program = "import os; from bridge.authority import certificate_for; certificate_for(['localhost'], os.environ)"
    for _ in range(3):
        shutil.rmtree(place / "data", ignore_errors=True)
        started = [subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[1]) for _ in range(3)]
        assert [process.wait(60) for process in started] == [0, 0, 0]
        assert fits(*make("localhost"), "localhost")
        assert len(list((place / "data" / "bridge" / "https").iterdir())) == 3
