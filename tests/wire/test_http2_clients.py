"""HTTP/2 clients and proxies of other people, over TLS and without: in parallel, an upload, a download, a reset.

A client that is not installed is left out.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from tests.support.running import Running

pytestmark = [pytest.mark.slow, pytest.mark.long]

UPLOAD = 20_000_000


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program}")


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    with Running("http2_clients:app", "--http2-cleartext", "on", "--no-access-log") as server:
        host, port = server.address()
        yield f"http://{host}:{port}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    paths = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    issued.cert_chain_pems[0].write_to_path(paths[0])
    issued.private_key_pem.write_to_path(paths[1])
    authority.cert_pem.write_to_path(paths[2])
    return paths


@pytest.fixture(scope="module")
def encrypted_server(certificate: tuple[Path, Path, Path]) -> Iterator[Running]:
    cert, key, _ = certificate
    with Running("http2_clients:app", "--certfile", str(cert), "--keyfile", str(key), "--no-access-log") as server:
        server.address()
        yield server


@pytest.fixture(scope="module")
def encrypted(encrypted_server: Running) -> str:
    host, port = encrypted_server.address()
    return f"https://{host}:{port}"


@pytest.fixture(params=["plain", "encrypted"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upload") / "zeros"
    path.write_bytes(bytes(UPLOAD))
    return path


def run(*command: str, timeout: float = 60, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout


# --- clients ----------------------------------------------------------------------------------------------------------


@needs("curl")
def test_curl(url: str, upload: Path) -> None:
    curl = ["curl", "-sS", "-k", *(["--http2-prior-knowledge"] if url.startswith("http:") else ["--http2"])]
    told = "%{http_version} %{response_code} %{size_download}\n"
    assert run(*curl, "-w", told, "-o", "/dev/null", f"{url}/bytes/50000000") == "2 200 50000000\n"
    assert run(*curl, "--data-binary", f"@{upload}", f"{url}/upload") == str(UPLOAD)
    run(*curl, "--max-time", "0.5", f"{url}/wait", check=False)
    if url.startswith("https:"):  # without TLS, curl 7.88 fails with every server
        many = [word for number in range(1, 101) for word in ("-o", "/dev/null", f"{url}/bytes/{number * 1000}")]
        lines = run(*curl, "--parallel", "--parallel-max", "50", "-w", told, *many).splitlines()
        assert sorted(lines) == sorted(f"2 200 {number * 1000}" for number in range(1, 101))


@needs("nghttp")
def test_nghttp(url: str, upload: Path) -> None:
    words = run("nghttp", "-n", "-s", "-m", "60", f"{url}/bytes/50000").split()
    assert words.count("200") == 60
    assert "200" in run("nghttp", "-n", "-s", "-d", str(upload), f"{url}/upload").split()


@needs("h2load")
def test_h2load(url: str, upload: Path) -> None:
    assert "2000 succeeded, 0 failed" in run("h2load", "-n", "2000", "-c", "4", "-m", "100", f"{url}/bytes/100")
    assert "200 succeeded, 0 failed" in run("h2load", "-n", "200", "-c", "4", "-m", "20", f"{url}/bytes/300000")
    assert "20 succeeded, 0 failed" in run(
        "h2load", "-n", "20", "-c", "2", "-m", "5", "-d", str(upload), f"{url}/upload"
    )


NODE = """
const http2 = require('http2');
const client = http2.connect(process.argv[1], {rejectUnauthorized: false});
const ask = (path, content, cancel) => new Promise(resolve => {
  const stream = client.request({':path': path, ':method': content ? 'POST' : 'GET'});
  let size = 0, status = 0;
  stream.on('response', fields => status = fields[':status']);
  stream.on('data', data => { size += data.length; if (cancel) stream.close(http2.constants.NGHTTP2_CANCEL); });
  stream.on('close', () => resolve([status, size]));
  stream.on('error', error => resolve(['error', error.message]));
  stream.end(content);
});
(async () => {
  const found = {};
  const many = await Promise.all(Array.from({length: 300}, (_, number) => ask('/bytes/' + number * 100)));
  found.parallel = many.filter(([status, size], number) => status == 200 && size == number * 100).length;
  found.upload = await ask('/upload', Buffer.alloc(20000000));
  found.download = await ask('/bytes/30000000');
  found.reset = (await ask('/bytes/1000000000', null, true))[1] < 100000000;
  found.after = await ask('/bytes/5');
  client.ping(Buffer.alloc(8), error => { found.ping = error; client.close(); console.log(JSON.stringify(found)); });
})();
"""


@needs("node")
def test_node(url: str) -> None:
    assert json.loads(run("node", "-e", NODE, url)) == {
        "parallel": 300,
        "upload": [200, len(str(UPLOAD))],
        "download": [200, 30_000_000],
        "reset": True,
        "after": [200, 5],
        "ping": None,
    }


class H2Client:
    """A client over the package h2, which checks all that the server sends."""

    def __init__(self, url: str) -> None:
        scheme, _, address = url.partition("://")
        host, _, port = address.partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=20)
        if scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            self._socket = context.wrap_socket(self._socket)
            assert self._socket.selected_alpn_protocol() == "h2"
        self._scheme = scheme
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.sizes: dict[int, int] = {}
        self.ended: set[int] = set()
        self.send()

    def __enter__(self) -> H2Client:
        return self

    def __exit__(self, *args: object) -> None:
        self._socket.close()

    def send(self) -> None:
        self._socket.sendall(self.h2.data_to_send())

    def ask(self, path: str, method: str = "GET", *, ended: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", self._scheme), (":authority", "localhost"), (":path", path)]
        self.h2.send_headers(stream, fields, end_stream=ended)
        self.send()
        return int(stream)

    def receive(self) -> None:
        data = self._socket.recv(65536)
        assert data, "the server has closed the connection"
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                assert dict(event.headers)[":status"] == "200"
            elif isinstance(event, h2.events.DataReceived):
                self.sizes[event.stream_id] = self.sizes.get(event.stream_id, 0) + len(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            else:
                assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated)
        self.send()

    def wait_for(self, *streams: int) -> None:
        while not self.ended.issuperset(streams):
            self.receive()


def test_the_package_h2(url: str) -> None:
    with H2Client(url) as client:
        client.receive()
        streams = {client.ask(f"/bytes/{size}"): size for size in range(1, 90_000, 1000)}
        client.wait_for(*streams)
        assert client.sizes == streams
        stream = client.ask("/upload", "POST", ended=False)
        left = 5_000_000
        while left:
            size = min(left, client.h2.local_flow_control_window(stream), client.h2.max_outbound_frame_size)
            if size:
                left -= size
                client.h2.send_data(stream, bytes(size), end_stream=not left)
                client.send()
            else:
                client.receive()
        client.wait_for(stream)
        assert client.sizes[stream] == 7
        stream = client.ask("/bytes/1000000000")
        while client.sizes.get(stream, 0) < 100_000:
            client.receive()
        client.h2.reset_stream(stream, 8)
        client.send()
        client.wait_for(client.ask("/bytes/1"))


def test_grpc(plain: str) -> None:
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel(plain.partition("://")[2]) as channel:
        unary = channel.unary_unary("/test.Echo/Unary")
        assert unary(b"x", timeout=20) == b"x"
        assert unary(b"y" * 1_000_000, timeout=20) == b"y" * 1_000_000
        with pytest.raises(grpc.RpcError) as caught:
            unary(b"fail", timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        messages = [b"%d" % number for number in range(10_000)]
        assert channel.stream_unary("/test.Echo/ClientStream")(iter(messages), timeout=60) == b"10000"
        assert [*channel.unary_stream("/test.Echo/ServerStream")(b"10000", timeout=60)] == messages
        # More small messages than the budget for frames without use has: each is acknowledged by window updates.
        assert [*channel.stream_stream("/test.Echo/Both")(iter(messages), timeout=60)] == messages
        calls = [unary.future(b"%d" % number, timeout=60) for number in range(500)]
        assert [call.result() for call in calls] == messages[:500]
        call = channel.unary_stream("/test.Echo/ServerStream")(b"100000000", timeout=60)
        next(call)
        call.cancel()
        assert unary(b"after", timeout=20) == b"after"


@needs("chromium")
def test_chromium(encrypted_server: Running, tmp_path: Path) -> None:
    port = encrypted_server.address()[1]
    browser = subprocess.Popen(
        [
            *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"),
            *(f"--user-data-dir={tmp_path}", "--remote-debugging-port=0", f"https://localhost:{port}/page"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        line = encrypted_server.messages.wait(r"report \{")
    finally:
        browser.terminate()
        browser.wait(20)
    assert json.loads(line.partition("report ")[2]) == {
        "images": 100,
        "protocols": "h2",
        "upload": str(UPLOAD),
        "download": 10_000_000,
        "abort": "AbortError",
        "socket": 500,
    }


# --- proxies ----------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def proxy(port: int, *command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 20
        while True:
            assert process.poll() is None, process.stdout and process.stdout.read()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert time.monotonic() < end
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


def through_a_proxy(port: int, upload: Path) -> None:
    url = f"http://127.0.0.1:{port}"
    curl = ["curl", "-sS", "--http2-prior-knowledge"]
    assert run(*curl, "-w", "%{size_download}", "-o", "/dev/null", f"{url}/bytes/100000000") == "100000000"
    assert run(*curl, "--data-binary", f"@{upload}", f"{url}/upload") == str(UPLOAD)
    assert "HTTP/2 200" in run(*curl, "-I", f"{url}/bytes/0").splitlines()[0]
    run(*curl, "--max-time", "0.5", f"{url}/wait", check=False)
    assert "1000 succeeded, 0 failed" in run("h2load", "-n", "1000", "-c", "8", "-m", "16", f"{url}/bytes/1000")


HAPROXY = """
defaults
  mode http
  timeout connect 9s
  timeout client 30s
  timeout server 30s
frontend f
  bind 127.0.0.1:{port} proto h2
  default_backend b
backend b
  server s {server} proto h2
"""


@needs("haproxy")
@needs("curl")
@needs("h2load")
def test_haproxy(plain: str, upload: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = tmp_path / "haproxy.cfg"
    settings.write_text(HAPROXY.format(port=port, server=plain.partition("://")[2]))
    with proxy(port, "haproxy", "-f", str(settings)):
        through_a_proxy(port, upload)


NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log stderr;
events {{ }}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  upstream b {{ server {server}; keepalive 8; }}
  server {{ listen 127.0.0.1:{port} http2; location / {{ grpc_pass grpc://b; }} }}
}}
"""


@needs("nginx")
@needs("curl")
@needs("h2load")
def test_nginx(plain: str, upload: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = tmp_path / "nginx.conf"
    settings.write_text(NGINX.format(port=port, server=plain.partition("://")[2], folder=tmp_path))
    with proxy(port, "nginx", "-p", str(tmp_path), "-c", str(settings)):
        through_a_proxy(port, upload)
