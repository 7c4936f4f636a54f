"""A small embedding service on loopback, for embeddings_http.py.

`POST /v1/embeddings` takes {"model": ..., "input": [text, ...]} and answers {"data": [{"index": i,
"embedding": [...]}, ...]}, in no particular order, after the 30 ms that such a service takes. Its
embedding is the honest minimum: how often each of 64 hashes of words occurs.
"""

import json
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

SIZE = 64


def embed(text: str) -> list[int]:
    vector = [0] * SIZE
    for word in re.findall(r"\w{4,}", text.lower()):
        vector[zlib.crc32(word.encode()) % SIZE] += 1
    return vector


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: else each waits for the other's acknowledgement

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(0.03)
        data = [{"index": i, "embedding": embed(text)} for i, text in enumerate(body["input"])]
        reply = json.dumps({"model": body["model"], "data": data[::-1]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args: object) -> None:
        pass  # quietly


@contextmanager
def serve() -> Iterator[str]:
    """Run the service as long as the context lasts, and give its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
