"""Certificates: chosen by name, asked of clients, replaced while serving."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.serving.certificates import Certificates, empty_context, tls_context
from tests.supervisor.stage import noted
from tests.support.manualloop import ManualLoop
from tests.support.running import Running

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write(authority: trustme.CA, directory: Path, *names: str, base: str = "cert") -> tuple[str, str]:
    """Write a new certificate for *names* and its key over the old ones, each at once."""
    issued = authority.issue_cert(*names)
    for suffix, content in (
        ("pem", b"".join(blob.bytes() for blob in issued.cert_chain_pems)),
        ("key", issued.private_key_pem.bytes()),
    ):
        (directory / f"{base}.new").write_bytes(content)
        os.replace(directory / f"{base}.new", directory / f"{base}.{suffix}")
    return str(directory / f"{base}.pem"), str(directory / f"{base}.key")


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def names(address: tuple[str, int], context: ssl.SSLContext, host: str) -> set[str]:
    """Connect, ask, and return the names in the server's certificate."""
    with socket.create_connection(address, 10) as sock, context.wrap_socket(sock, server_hostname=host) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := tls.recv(65536):
            answer += data
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        certificate = tls.getpeercert()
        assert certificate is not None
        return {value for _, value in certificate["subjectAltName"]}


@slow
@pytest.mark.parametrize(
    ("workers", "how"),
    [
        pytest.param([], "files", id="alone-files"),
        pytest.param([], "HUP", id="alone-HUP", marks=pytest.mark.wide),
        pytest.param(["--workers", "2"], "files", id="workers-files", marks=pytest.mark.wide),
        pytest.param(["--workers", "2"], "HUP", id="workers-HUP"),
    ],
)
def test_certificates_are_replaced_under_load(
    authority: trustme.CA, tmp_path: Path, how: str, workers: list[str]
) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    context = trusting(authority)
    argv = ["plain:asgi", "--ssl-certfile", certificate, "--ssl-keyfile", key, "--no-access-log", *workers]
    if how == "HUP":
        argv.append("--no-ssl-reload")
    with Running(*argv) as server:
        address = server.address()
        faults: list[str] = []
        stop, enough = threading.Event(), threading.Event()
        count = 0

        def load() -> None:
            nonlocal count
            while not stop.is_set():
                try:
                    names(address, context, "a.example")
                    count += 1
                    if count == 4:
                        enough.set()
                except (OSError, AssertionError) as exc:
                    faults.append(repr(exc))

        thread = threading.Thread(target=load)
        thread.start()
        try:
            write(authority, tmp_path, "a.example", "new.example")
            if how == "HUP":
                server.signal("SIGHUP")
                server.messages.wait("Reloaded: 2 workers" if workers else "new connections get")
            else:
                server.messages.wait("new connections get", 2 if workers else 1)
            assert names(address, context, "new.example") == {"a.example", "new.example"}
            enough.wait(10)
        finally:
            stop.set()
            thread.join()
        assert faults == []
        assert enough.is_set()
        assert server.end() == 0


def resume(
    address: tuple[str, int], context: ssl.SSLContext, host: str, session: ssl.SSLSession | None
) -> tuple[bytes, ssl.SSLSession | None, bool | None]:
    """Connect with a session, ask, and return the content, the next session, and whether the first was resumed."""
    with (
        socket.create_connection(address, 10) as sock,
        context.wrap_socket(sock, server_hostname=host, session=session) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := tls.recv(65536):
            answer += data
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        return answer.partition(b"\r\n\r\n")[2], tls.session, tls.session_reused


@slow
@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="alone", marks=pytest.mark.wide),
        pytest.param(["--workers", "2"], id="workers"),
        pytest.param(["--workers", "2", "--preload"], id="preload", marks=pytest.mark.wide),
        pytest.param(["--workers", "2", "--loop", "asyncio"], id="asyncio", marks=pytest.mark.wide),
    ],
)
def test_each_worker_resumes_the_sessions_of_the_others(authority: trustme.CA, tmp_path: Path, more: list[str]) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    other, other_key = write(authority, tmp_path, "b.example", base="other")
    argv = ["plain:asgi", "--ssl-certfile", certificate, "--ssl-keyfile", key, "--no-access-log", *more]
    argv += ["--ssl-sni", f"b.example={other},{other_key}"]
    with Running(*argv) as server:
        address = server.address()
        sessions = []
        for version, host in (
            (ssl.TLSVersion.TLSv1_2, "a.example"),
            (ssl.TLSVersion.TLSv1_3, "a.example"),
            (ssl.TLSVersion.TLSv1_3, "b.example"),
        ):
            context = trusting(authority)
            context.maximum_version = version
            process, session, _ = resume(address, context, host, None)
            processes = {process}
            for _ in range(500):  # until the system has given a connection to each worker
                process, session, reused = resume(address, context, host, session)
                assert reused
                processes.add(process)
                if len(processes) == 2 or not more:
                    break
            assert len(processes) == (2 if more else 1)
            sessions.append((context, host, session))
        server.signal("SIGHUP")
        server.messages.wait("Reloaded: 2 workers" if more else "new connections get")
        for context, host, session in sessions:  # the keys are others, and the handshake is a whole one
            _, session, reused = resume(address, context, host, session)
            assert not reused
            assert resume(address, context, host, session)[2]
        assert server.end() == 0


def test_the_first_context_is_the_one_that_is_given(authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    config = Config(ssl_certfile=certificate, ssl_keyfile=key)
    empty = empty_context()
    certificates = Certificates(config, empty=empty)
    assert certificates.context is empty
    assert certificates.reload()
    assert certificates.context is not empty
    assert Certificates(config).context is not Certificates(config).context


def test_files_that_do_not_fit_change_nothing(
    authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    certificates = Certificates(Config(ssl_certfile=certificate, ssl_keyfile=key))
    before = certificates.context
    authority.issue_cert("b.example").private_key_pem.write_to_path(key)
    assert not certificates.reload()
    assert certificates.context is before
    assert "the key does not belong to the certificate" in caplog.text


def test_the_certificate_that_clients_get_is_the_contexts(authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    end = "-----END CERTIFICATE-----\n"

    def first() -> str:
        return Path(certificate).read_text().partition(end)[0] + end

    settings = {"ssl_certfile": certificate, "ssl_keyfile": key}
    certificates = Certificates(Config(**settings))  # type: ignore[arg-type]
    before = first()
    assert certificates.server_certificate == before
    authority.issue_cert("b.example").private_key_pem.write_to_path(key)
    assert not certificates.reload()
    assert certificates.server_certificate == before
    write(authority, tmp_path, "a.example")
    assert certificates.reload()
    assert certificates.server_certificate == first() != before
    os.unlink(certificate)
    assert not certificates.reload()
    assert certificates.server_certificate is not None


def test_no_certificate_is_named_where_clients_may_get_another(authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    config = Config(ssl_certfile=certificate, ssl_keyfile=key, ssl_sni=(("b.example", certificate, key),))
    assert Certificates(config).server_certificate is None


RELOADED = "INFO TLS: new connections get {} as it is now"


def test_files_are_read_anew_once_when_nothing_has_changed_for_a_second(authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    loop = ManualLoop()
    with noted() as notes:
        certificates = Certificates(Config(ssl_certfile=certificate, ssl_keyfile=key))
        loop.call(certificates.watch, loop)
        loop.advance(10.25)
        before = certificates.context
        assert notes.take() == []
        issued = authority.issue_cert("b.example")
        issued.cert_chain_pems[0].write_to_path(certificate)
        loop.advance(1.0)  # seen: the key may follow
        issued.private_key_pem.write_to_path(key)
        loop.advance(1.0)
        assert (certificates.context is before, notes.take()) == (True, [])
        loop.advance(1.0)
        assert certificates.context is not before
        assert notes.take() == [RELOADED.format(certificate)]
        before = certificates.context
        loop.advance(100.0)
        assert (certificates.context is before, notes.take()) == (True, [])
        certificates.close()
        write(authority, tmp_path, "c.example")
        loop.advance(100.0)
        assert (certificates.context is before, notes.take()) == (True, [])
    assert loop.errors == []
    loop.close()


def test_what_was_read_by_hand_is_not_read_again(authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    loop = ManualLoop()
    with noted() as notes:
        certificates = Certificates(Config(ssl_certfile=certificate, ssl_keyfile=key))
        loop.call(certificates.watch, loop)
        write(authority, tmp_path, "b.example")
        assert certificates.reload()
        assert notes.take() == [RELOADED.format(certificate)]
        loop.advance(100.0)
        assert notes.take() == []
        os.unlink(key)
        loop.advance(100.0)
        assert len(notes.take()) == 1  # what cannot be used is said once
        certificates.close()
    loop.close()


def test_files_are_left_alone_when_the_settings_say_so(authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    loop = ManualLoop()
    with noted() as notes:
        certificates = Certificates(Config(ssl_certfile=certificate, ssl_keyfile=key, ssl_reload=False))
        loop.call(certificates.watch, loop)
        write(authority, tmp_path, "b.example")
        loop.advance(100.0)
        certificates.close()
        assert notes.take() == []
    loop.close()


@slow
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_files_that_do_not_fit_keep_the_old_ones_serving(
    authority: trustme.CA, tmp_path: Path, workers: list[str]
) -> None:
    """With names of their own and client certificates, while others ask all the time."""
    first, first_key = write(authority, tmp_path, "a.example")
    other, other_key = write(authority, tmp_path, "b.example", base="other")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    argv = ["plain:asgi", "--ssl-certfile", first, "--ssl-keyfile", first_key, "--no-access-log", *workers]
    argv += ["--ssl-sni", f"b.example={other},{other_key}"]
    argv += ["--ssl-cert-reqs", "required", "--ssl-ca-certs", str(tmp_path / "ca.pem")]
    context = trusting(authority)
    authority.issue_cert("client@example.org").configure_cert(context)
    processes = len(workers) or 1
    with Running(*argv) as server:
        address = server.address()
        faults: list[str] = []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                for host in ("a.example", "b.example"):
                    try:
                        names(address, context, host)
                    except (OSError, AssertionError) as exc:
                        faults.append(f"{host}: {exc!r}")

        thread = threading.Thread(target=load)
        thread.start()
        try:
            authority.issue_cert("wrong.example").private_key_pem.write_to_path(other_key)
            message = server.messages.wait("The TLS files cannot be used, the old certificate stays", processes)
            assert f"--ssl-sni b.example {other} and key {other_key}: the key does not belong" in message
            assert names(address, context, "b.example") == {"b.example"}
            write(authority, tmp_path, "b.example", "new.example", base="other")
            server.messages.wait("new connections get", processes)
            assert names(address, context, "b.example") == {"b.example", "new.example"}
            assert names(address, context, "a.example") == {"a.example"}
            with pytest.raises((OSError, AssertionError)):
                names(address, trusting(authority), "b.example")
        finally:
            stop.set()
            thread.join()
        assert faults == []
        assert server.messages.text.count("cannot be used") == processes
        assert server.end() == 0


@slow
def test_names_and_client_certificates(authority: trustme.CA, tmp_path: Path) -> None:
    first, first_key = write(authority, tmp_path, "a.example")
    other, other_key = write(authority, tmp_path, "b.example", base="other")
    wild, wild_key = write(authority, tmp_path, "*.c.example", base="wild")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    argv = ["plain:asgi", "--ssl-certfile", first, "--ssl-keyfile", first_key]
    argv += ["--ssl-sni", f"b.example={other},{other_key}", "--ssl-sni", f"*.c.example={wild},{wild_key}"]
    argv += ["--ssl-cert-reqs", "required", "--ssl-ca-certs", str(tmp_path / "ca.pem")]
    with Running(*argv, "--ssl-minimum-version", "1.3") as server:
        address = server.address()
        context = trusting(authority)
        authority.issue_cert("client@example.org").configure_cert(context)
        assert names(address, context, "a.example") == {"a.example"}
        assert names(address, context, "B.Example") == {"b.example"}
        assert names(address, context, "x.c.example") == {"*.c.example"}
        with pytest.raises((OSError, AssertionError)):
            names(address, trusting(authority), "a.example")  # without a certificate: an alert, or no answer
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            names(address, context, "a.example")
        assert server.end() == 0


def test_a_factory(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    (tmp_path / "tls_factory.py").write_text(
        "def good(config, usual):\n    context = usual()\n    context.num_tickets = 0\n    return context\n"
        "def bad(config, usual):\n    return 1\n"
        "def broken(config, usual):\n    raise KeyError('x')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(name: str) -> Certificates:
        return Certificates(
            Config(ssl_certfile=certificate, ssl_keyfile=key, ssl_context_factory=f"tls_factory:{name}")
        )

    assert made("good").context.num_tickets == 0
    assert made("good").server_certificate is None
    with pytest.raises(ConfigError, match=r"returned no ssl.SSLContext"):
        made("bad")
    with pytest.raises(ConfigError, match=r"tls_factory:broken: KeyError: 'x'"):
        made("broken")
    with pytest.raises(ConfigError, match=r"tls_factory:none: AttributeError"):
        made("none")


def test_faults_name_the_file(authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = write(authority, tmp_path, "a.example")
    (tmp_path / "text").write_text("no certificate")
    text = str(tmp_path / "text")
    none = str(tmp_path / "none")
    other = str(tmp_path / "other.key")
    authority.issue_cert("b.example").private_key_pem.write_to_path(other)
    for values, message in (
        ({"ssl_certfile": none}, f"--ssl-certfile {none}: No such file or directory"),
        ({"ssl_certfile": certificate, "ssl_keyfile": none}, f"--ssl-keyfile {none}: No such file or directory"),
        ({"ssl_certfile": text}, f"--ssl-certfile {text}: no certificate or key in PEM form"),
        ({"ssl_certfile": certificate, "ssl_keyfile": other}, "the key does not belong to the certificate"),
        ({"ssl_certfile": certificate, "ssl_keyfile": key, "ssl_ca_certs": text}, f"--ssl-ca-certs {text}: "),
        ({"ssl_certfile": certificate, "ssl_keyfile": key, "ssl_ciphers": "none"}, "--ssl-ciphers: "),
        ({"ssl_certfile": certificate, "ssl_keyfile": key, "ssl_sni": (("b", none, ""),)}, f"--ssl-sni b {none}: "),
    ):
        with pytest.raises(ConfigError) as caught:
            tls_context(Config(**values))  # type: ignore[arg-type]
        assert message in str(caught.value)
    assert tls_context(Config()) is None


def test_what_is_missing_is_named(authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = write(authority, tmp_path, "localhost")
    with pytest.raises(ConfigError, match="a certificate and no private key; name the key's file with --ssl-keyfile"):
        tls_context(Config(ssl_certfile=certificate))
    with pytest.raises(ConfigError, match=f"no private key in PEM form in {certificate}"):
        tls_context(Config(ssl_certfile=certificate, ssl_keyfile=certificate))
    with pytest.raises(ConfigError, match="no certificate or key in PEM form in it"):
        tls_context(Config(ssl_certfile=key))
