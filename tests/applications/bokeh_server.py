"""A Bokeh server in which one name is bound anew: the HTTPServer that it starts is bridge's."""

import signal

import bokeh.server.server
import numpy as np
from bokeh.document import Document
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, Slider
from bokeh.plotting import figure
from tornado.ioloop import IOLoop

from bridge.core.httpserver import HTTPServer


def sine(document: Document) -> None:
    """A page whose plot follows a slider, as in Bokeh's gallery."""
    source = ColumnDataSource(data={"x": [0, 1, 2], "y": [0, 1, 4]}, name="source")
    plot = figure(height=200)
    plot.line("x", "y", source=source)
    slider = Slider(start=0, end=1_000_000, value=1, step=1, name="slider")

    def follow(_: str, __: object, value: int) -> None:
        x = np.arange(value, dtype=np.float64)
        source.data = {"x": x, "y": np.sin(x)}

    slider.on_change("value", follow)
    document.add_root(column(slider, plot))


def main() -> None:
    bokeh.server.server.HTTPServer = HTTPServer
    server = bokeh.server.server.Server(
        {"/sine": sine},
        port=0,
        address="127.0.0.1",
        keep_alive_milliseconds=100,
        check_unused_sessions_milliseconds=200,
    )
    assert isinstance(server._http, HTTPServer)
    server.start()
    loop = IOLoop.current()

    signal.signal(signal.SIGTERM, lambda *_: loop.add_callback_from_signal(loop.stop))
    print(f"http://127.0.0.1:{server.port}", flush=True)
    loop.start()
    server.stop()


if __name__ == "__main__":
    main()
