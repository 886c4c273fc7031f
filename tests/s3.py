"""A small S3 on loopback, kept in memory: enough of the protocol for checkpoints to go there and come back."""

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testing1", "AWS_EC2_METADATA_DISABLED": "true"}


class _Handler(BaseHTTPRequestHandler):
    """Objects by ``/bucket/key`` in ``server.objects``; ``server.failing`` answers 503 to everything."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        path, query = self._target()
        if "list-type" in query:
            return self._list(path.strip("/"), query)
        content = self.server.objects.get(path)
        if content is None:
            return self._answer(404, _error("NoSuchKey"))
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), int(asked[2] or len(content) - 1)
            last = min(last, len(content) - 1)
            headers = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            return self._answer(206, content[first : last + 1], headers)
        self._answer(200, content)

    def do_HEAD(self) -> None:
        path, _ = self._target()
        is_bucket = path.strip("/").count("/") == 0
        content = b"" if is_bucket else self.server.objects.get(path)
        self._answer(404 if content is None else 200, content or b"")

    def do_PUT(self) -> None:
        path, query = self._target()
        if "partNumber" in query:
            self.server.parts.setdefault(path, {})[int(query["partNumber"][0])] = self._body()
        else:
            self._keep(path, self._body())
        self._answer(200, b"")

    def _keep(self, path: str, content: bytes) -> None:
        self.server.objects[path] = content
        self.server.log.append(path)

    def do_DELETE(self) -> None:
        path, _ = self._target()
        self.server.objects.pop(path, None)
        self._answer(204, b"")

    def do_POST(self) -> None:
        path, query = self._target()
        if "uploads" in query:
            return self._answer(
                200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            )
        if "uploadId" in query:
            self._body()
            parts = self.server.parts.pop(path, {})
            self._keep(path, b"".join(parts[number] for number in sorted(parts)))
            return self._answer(200, b"<CompleteMultipartUploadResult><ETag>0</ETag></CompleteMultipartUploadResult>")
        for key in re.findall(rb"<Key>(.*?)</Key>", self._body()):
            self.server.objects.pop(f"/{path.strip('/')}/{key.decode()}", None)
        self._answer(200, b"<DeleteResult/>")

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        keys = [path[len(bucket) + 2 :] for path in self.server.objects if path.startswith(f"/{bucket}/")]
        files, folders = [], set()
        for key in sorted(key for key in keys if key.startswith(prefix)):
            head, mark, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if mark:
                folders.add(prefix + head + mark)
            else:
                files.append(key)
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.objects[f'/{bucket}/{key}'])}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in files
        )
        rows += "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders))
        count = len(files) + len(folders)
        text = (
            f"<ListBucketResult><KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        )
        self._answer(200, text.encode())

    def _target(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = _unchunked(self.rfile)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_signed_in_parts = self.headers.get("x-amz-content-sha256", "").startswith("STREAMING")
        return _unchunked(io.BytesIO(body)) if is_signed_in_parts else body

    def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        if self.server.failing:
            code, body = 503, _error("SlowDown")
        self.send_response(code)
        told = {"ETag": '"0"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", **(headers or {})}
        for name, value in told.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.log: list[str] = []  # paths in the order in which they were written
        self.failing = False

    def url(self, path: str) -> str:
        """URL of ``bucket/path`` as pyarrow takes it."""
        return f"s3://{path}?endpoint_override=127.0.0.1:{self.server_port}&scheme=http&region=us-east-1"


def _unchunked(stream: BinaryIO) -> bytes:
    """Chunks of ``SIZE in hex[;...]``, up to an empty one and the trailers behind it."""
    body = b""
    while size := int(stream.readline().split(b";")[0], 16):
        body += stream.read(size)
        stream.readline()
    while stream.readline().strip():
        continue
    return body


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


@contextmanager
def running_s3() -> Iterator[_Server]:
    """A server, with the credentials that clients need in the environment of this process and its children."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        server = _Server()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
