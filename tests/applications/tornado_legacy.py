"""A Tornado application whose own patterns begin with the path that it is mounted at."""

import tornado.web
import tornado.websocket


class Page(tornado.web.RequestHandler):
    def get(self) -> None:
        self.write(f"tornado {self.request.path}")


class Echo(tornado.websocket.WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


app = tornado.web.Application([(r"/legacy/ws", Echo), (r"/legacy/.*", Page)])
