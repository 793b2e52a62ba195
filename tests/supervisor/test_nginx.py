"""Behind nginx: on TCP and on a unix socket, with forwarded fields and with the PROXY protocol."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.running import Client, Running

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]

HTTP = """\
daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log; worker_processes 1; user {user};
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  upstream app {{ server {upstream}; keepalive 4; }}
  server {{
    listen unix:{dir}/front.sock;
    set_real_ip_from unix:; real_ip_header X-Test-Client;
    location /app/ {{
      proxy_pass http://app/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_set_header X-Forwarded-Host www.example.org;
      proxy_set_header X-Forwarded-Port 443;
      proxy_set_header X-Forwarded-Prefix /app;
      proxy_set_header Forwarded "";
    }}
  }}
}}
"""

STREAM = """\
load_module {modules}/ngx_stream_module.so;
daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log; worker_processes 1; user {user};
events {{ worker_connections 64; }}
stream {{
  server {{ listen 127.0.0.1:{port}; proxy_pass {upstream}; proxy_protocol on; }}
}}
"""


def place(server: Running) -> str:
    host, port = server.address()
    return f"{host}:{port}"


@contextmanager
def nginx(directory: Path, text: str, **values: object) -> Iterator[str]:
    """Run nginx; yield the path of its socket."""
    import getpass
    import time

    config = directory / "nginx.conf"
    config.write_text(text.format(dir=directory, user=getpass.getuser(), **values))
    assert NGINX is not None
    process = subprocess.Popen(
        [NGINX, "-c", str(config), "-p", str(directory), "-e", str(directory / "start.log")], stderr=subprocess.PIPE
    )
    try:
        end = time.monotonic() + 10
        while not (directory / "nginx.pid").exists() or not (directory / "nginx.pid").read_text():
            if process.poll() is not None or time.monotonic() > end:
                assert process.stderr is not None
                raise AssertionError(process.stderr.read().decode() + (directory / "error.log").read_text())
            time.sleep(0.01)
        yield str(directory / "front.sock")
    finally:
        process.terminate()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()


SPOOFED = (
    "X-Test-Client: 198.51.100.7",  # whom nginx takes for its client
    "X-Real-Ip: 1.2.3.4",
    "X-Scheme: ftp",
    "Forwarded: for=1.2.3.4;host=evil.example;proto=http",
    "X-Forwarded-For: 1.2.3.4",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Prefix: /evil",
)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("app", ["plain:asgi", "plain:wsgi", "requests_app:app"])
def test_forwarded_fields(tmp_path: Path, kind: str, app: str) -> None:
    where = ["--port", "0"] if kind == "tcp" else ["--uds", str(tmp_path / "app.sock")]
    trust = ["--forwarded-allow-ips", "127.0.0.1" if kind == "tcp" else "unix"]
    with Running(app, *where, *trust) as server:
        server.messages.wait("serving")
        upstream = place(server) if kind == "tcp" else f"unix:{tmp_path}/app.sock"
        with nginx(tmp_path, HTTP, upstream=upstream) as front:
            path = "/app/environ" if app == "plain:wsgi" else "/app/scope"
            for _ in range(2):  # the second on a connection that has been used
                with Client(front) as client:
                    status, _, content = client.get(path, *SPOOFED)
                assert status == 200
                check(app, json.loads(content))
        assert server.end() == 0


def check(app: str, seen: dict[str, Any]) -> None:
    assert "1.2.3.4" not in json.dumps(seen).replace("X-Real-Ip", "") or app != "requests_app:app"
    if app == "plain:asgi":
        assert seen["client"] == ["198.51.100.7", 0]
        assert seen["server"] == ["www.example.org", 443]
        assert (seen["scheme"], seen["root_path"], seen["path"]) == ("https", "/app", "/app/scope")
        assert ["host", "www.example.org"] in seen["headers"]
        assert ["x-forwarded-for", "198.51.100.7"] in seen["headers"]
    elif app == "plain:wsgi":
        assert seen["REMOTE_ADDR"] == "198.51.100.7"
        assert (seen["wsgi.url_scheme"], seen["HTTPS"]) == ("https", "on")
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/app", "/environ")
        assert (seen["HTTP_HOST"], seen["SERVER_NAME"], seen["SERVER_PORT"]) == (
            "www.example.org",
            "www.example.org",
            "443",
        )
    else:
        assert seen == {
            "remote_ip": "198.51.100.7",
            "protocol": "https",
            "host": "www.example.org",
            "prefix": "/app",
            "forwarded": "198.51.100.7",
        }


@pytest.mark.parametrize("trust", [[], ["--forwarded-allow-ips", "192.0.2.0/24"]], ids=["default", "other"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("app", ["plain:asgi", "plain:wsgi", "requests_app:app"])
def test_who_is_not_trusted_is_not_believed(tmp_path: Path, app: str, kind: str, trust: list[str]) -> None:
    where = ["--port", "0"] if kind == "tcp" else ["--uds", str(tmp_path / "app.sock")]
    with Running(app, *where, *trust) as server:
        server.messages.wait("serving")
        upstream = place(server) if kind == "tcp" else f"unix:{tmp_path}/app.sock"
        with nginx(tmp_path, HTTP, upstream=upstream) as front:
            with Client(front) as client:
                path = "/app/environ" if app == "plain:wsgi" else "/app/scope"
                content = client.get(path, *SPOOFED)[2].decode()
        seen = who(app, json.loads(content))
        nobody = "0.0.0.0" if app == "requests_app:app" else ""  # what Tornado says for a unix socket
        assert seen == ("127.0.0.1" if kind == "tcp" else nobody, "http", "test.example", "")
        if trust:  # the fields are removed; by default an application, or its middleware, may look at them itself
            for text in ("1.2.3.4", "www.example.org", "evil", "ftp"):
                assert text not in content


def who(app: str, seen: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return client address, scheme, host and prefix as the application has been told of them."""
    if app == "plain:asgi":
        [host] = [text for name, text in seen["headers"] if name == "host"]
        return (seen["client"] or [""])[0], seen["scheme"], host, seen["root_path"]
    if app == "plain:wsgi":
        return seen["REMOTE_ADDR"], seen["wsgi.url_scheme"], seen["HTTP_HOST"], seen["SCRIPT_NAME"]
    return seen["remote_ip"], seen["protocol"], seen["host"], seen["prefix"]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("app", ["plain:asgi", "plain:wsgi", "requests_app:app"])
def test_the_proxy_protocol(tmp_path: Path, app: str, kind: str) -> None:
    modules = next((path for path in ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules")
                    if (Path(path) / "ngx_stream_module.so").exists()), None)  # fmt: skip
    if modules is None:
        pytest.skip("nginx has no stream module")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    where = ["--port", "0"] if kind == "tcp" else ["--uds", str(tmp_path / "app.sock")]
    # With the nearest proxy trusted for fields, too: they come from the client, as nginx's stream passes all on.
    trust = ["--forwarded-allow-ips", "127.0.0.1" if kind == "tcp" else "unix"]
    with Running(app, *where, "--proxy-protocol", "v1", *trust) as server:
        server.messages.wait("serving")
        upstream = place(server) if kind == "tcp" else f"unix:{tmp_path}/app.sock"
        with nginx(tmp_path, STREAM, upstream=upstream, modules=modules, port=port):
            with socket.socket() as sock:
                sock.settimeout(10)
                sock.bind(("127.0.0.9", 0))
                sock.connect(("127.0.0.1", port))
                fields = "".join(f"{line}\r\n" for line in SPOOFED)
                path = "/environ" if app == "plain:wsgi" else "/scope"
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n".encode())
                answer = b""
                while data := sock.recv(65536):
                    answer += data
        seen = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert who(app, seen) == ("127.0.0.9", "http", "a", "")
        assert b"evil" not in answer
        if app == "plain:asgi":
            assert seen["server"] == ["127.0.0.1", port]
        if app == "plain:wsgi":
            assert seen["SERVER_PORT"] == str(port)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_websockets_pass_through_what_the_docs_show(tmp_path: Path, kind: str) -> None:
    """The block of docs/deployment.md, but for addresses and certificates; and plain requests keep their connection."""
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    shown = page[page.index("```nginx") + 8 :].partition("```")[0]
    shown = re.sub(r"\s*(server_name|ssl_certificate\S*) .*;", "", shown)
    shown = shown.replace("listen 443 ssl;", f"listen unix:{tmp_path}/front.sock;")
    where = ["--port", "0"] if kind == "tcp" else ["--uds", str(tmp_path / "app.sock")]
    with Running("plain:sockets", *where, "--forwarded-allow-ips", "*") as server:
        server.messages.wait("serving")
        upstream = place(server) if kind == "tcp" else f"unix:{tmp_path}/app.sock"
        shown = shown.replace("unix:/run/mysite/bridge.sock", upstream).replace("{", "{{").replace("}", "}}")
        frame = HTTP.partition("  upstream app")[0]
        with nginx(tmp_path, frame + shown + "}}\n") as front, Client(front) as client:
            for _ in range(2):
                assert client.get("/scope")[0] == 200
            client.send("/", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
            assert client.read()[0] == 101
            client.sock.sendall(b"\x81\x82\0\0\0\0hi")
            assert client.sock.recv(4, socket.MSG_WAITALL) == b"\x81\x02hi"
            client.sock.sendall(b"\x88\x80\0\0\0\0")
        assert server.end() == 0
