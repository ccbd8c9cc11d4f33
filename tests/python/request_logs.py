"""A server that writes a log file for each request, as some do to find a request again.

--mode keep   the handler of the log is never closed: loggers live as long as the
              program, and with them their handlers and files
--mode close  it is closed after the answer

The logs lie in --dir. It listens on a free port of loopback, prints "ready HOST:PORT",
and ends when its standard input does.
"""

import argparse
import http.server
import itertools
import logging
import os
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    numbers = itertools.count()

    def do_GET(self):
        number = next(self.numbers)
        log, handler = self.open_request_log(number)
        log.info("%s asks for %s", self.client_address, self.path)
        body = f"request {number}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        log.info("answered")
        if self.server.mode == "close":
            log.removeHandler(handler)
            handler.close()

    def open_request_log(self, number):
        log = logging.getLogger(f"request.{number}")
        log.setLevel(logging.INFO)
        log.propagate = False
        handler = logging.FileHandler(os.path.join(self.server.dir, f"request-{number}.log"))
        log.addHandler(handler)
        return log, handler

    def log_message(self, *_):
        """Standard error is for what goes wrong."""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["keep", "close"], default="keep")
    parser.add_argument("--dir", required=True)
    args, _ = parser.parse_known_args()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.mode, server.dir = args.mode, args.dir
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready 127.0.0.1:%d" % server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
