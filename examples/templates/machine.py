"""A machine in production: machine.py DIRECTORY

Has a database of customers, listens for the shop, and starts the process of the current release whenever a request asks for that, as a
service manager would. Prints the addresses of the shop and of itself. All of it ends with this process.
"""

import http.server
import os
import socket
import sqlite3
import subprocess
import sys

RELEASE = "current/app.py"

os.chdir(sys.argv[1])
os.makedirs("releases", exist_ok=True)
with sqlite3.connect("shop.db") as database:
    database.execute("CREATE TABLE customers (name TEXT)")
    database.execute("INSERT INTO customers VALUES ('ada')")
shop = socket.create_server(("127.0.0.1", 0))
process = None


class Machine(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        """Replaces the process of the shop. Requests that arrive meanwhile wait on its socket."""
        global process
        if process is not None:
            process.terminate()
            process.wait()
            process = None
        if os.path.exists(RELEASE):
            command = [sys.executable, RELEASE, str(shop.fileno()), "shop.db"]
            process = subprocess.Popen(command, pass_fds=[shop.fileno()], stdin=subprocess.PIPE)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Machine)
print(*(f"http://127.0.0.1:{one.getsockname()[1]}/" for one in (shop, server.socket)), flush=True)
server.serve_forever()
