"""A terminal over WebSocket as Jupyter serves it (terminado), to measure against."""

import sys

import tornado.httpserver
import tornado.ioloop
import tornado.netutil
import tornado.web
from terminado import TermSocket, UniqueTermManager

manager = UniqueTermManager(shell_command=sys.argv[1:])
app = tornado.web.Application([(r"/websocket", TermSocket, {"term_manager": manager})])
sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
tornado.httpserver.HTTPServer(app).add_sockets(sockets)
print(sockets[0].getsockname()[1], flush=True)
tornado.ioloop.IOLoop.current().start()
