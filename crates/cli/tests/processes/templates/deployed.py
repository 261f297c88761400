"""Serves an application that is deployed in a folder: runs `current/app.py` on `app.db` for each request."""

import http.server
import subprocess
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ran = subprocess.run([sys.executable, "current/app.py", "app.db"], capture_output=True)
        self.send_response(200 if ran.returncode == 0 else 500)
        self.end_headers()
        self.wfile.write(ran.stdout)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"port {server.server_port}", flush=True)
server.serve_forever()
