"""A small service of models on loopback, for embeddings_http.py and the recipes of the docs.

`POST /v1/embeddings` takes {"model": ..., "input": [text, ...]} and answers {"data": [{"index": i,
"embedding": [...]}, ...]}, in no particular order, after the 30 ms that such a service takes. Its
embedding is the honest minimum: how often each of 64 hashes of words occurs. {"model": ...,
"messages": [{"content": text}]} is answered with {"choices": [{"message": {"content": ...}}]}: a
summary, which is the first three words.

If it is to have moods, as services do, it refuses a request of more than 8,000 characters, or with
an empty text in it, whatever else is in it; and tells some to come again later, fails with others,
and leaves others without an answer.
"""

import json
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from typing import Any

SIZE = 64
MOST = 8_000


def embed(text: str) -> list[int]:
    vector = [0] * SIZE
    for word in re.findall(r"\w{4,}", text.lower()):
        vector[zlib.crc32(word.encode()) % SIZE] += 1
    return vector


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: else each waits for the other's acknowledgement

    def __init__(self, requests: Iterator[int] | None, *connection: Any) -> None:
        self.requests = requests  # counted, if this has moods
        super().__init__(*connection)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(0.03)
        messages = body.get("messages", ())
        texts = body.get("input", [message["content"] for message in messages])
        mood = 0 if self.requests is None else next(self.requests) % 5
        if mood == 2:
            self.answer(429, {"error": "come again later"})
        elif mood == 3:
            self.answer(500, {"error": "out of order"})
        elif mood == 4:
            self.close_connection = True  # without an answer
        elif self.requests and (not all(texts) or sum(map(len, texts)) > MOST):
            self.answer(400, {"error": "a text is empty, or all together are too long"})
        elif messages:
            summary = " ".join(texts[-1].split()[:3])
            self.answer(200, {"choices": [{"message": {"content": summary}}]})
        else:
            data = [{"index": i, "embedding": embed(text)} for i, text in enumerate(texts)]
            self.answer(200, {"model": body["model"], "data": data[::-1]})

    def answer(self, status: int, body: Any) -> None:
        reply = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args: object) -> None:
        pass  # quietly


@contextmanager
def serve(*, moody: bool = False) -> Iterator[str]:
    """Run the service as long as the context lasts, and give its URL."""
    requests = count() if moody else None
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, requests)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
