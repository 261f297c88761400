"""The shop: app.py SOCKET DATABASE

Answers each request with its version, its process and its customers. The socket is that of its machine; it ends with its standard input.
"""

import contextlib
import http.server
import json
import os
import pathlib
import socket
import sqlite3
import sys
import threading

version = json.loads((pathlib.Path(__file__).parent / "version.json").read_text())


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with contextlib.closing(sqlite3.connect(sys.argv[2])) as database:
            try:
                customers = database.execute(f"SELECT name, {version['reads']} FROM customers").fetchall()
                self.answer(200, {"version": version["name"], "process": os.getpid(), "customers": customers})
            except sqlite3.Error as error:
                self.answer(500, {"version": version["name"], "error": str(error)})

    def answer(self, status, page):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(page).encode())

    def log_message(self, *_):
        pass


def end_with_machine():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_machine, daemon=True).start()
server = http.server.HTTPServer(("", 0), Page, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=int(sys.argv[1]))
server.serve_forever()
