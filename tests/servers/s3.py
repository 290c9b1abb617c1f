"""An S3 server of the test's own, in a process of its own: moto's, which keeps its buckets in memory."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4


@dataclass
class S3Server:
    """A server that can be ended; its buckets are gone then."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """What those need who use it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def bucket(self) -> str:
        """Make a bucket and return its URL."""
        name = f"test-{uuid4().hex[:12]}"
        put = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT")
        with urllib.request.urlopen(put, timeout=30) as reply:
            assert reply.status == 200
        return f"s3://{name}"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def s3() -> Iterator[S3Server]:
    """Run a server without buckets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    server = S3Server(port, process)
    try:
        end = time.monotonic() + 120
        while not _answers(port):
            assert process.poll() is None, "moto's server did not start: pip install 'leaven[dev]'"
            assert time.monotonic() < end, "moto's server does not answer"
            time.sleep(0.05)
        yield server
    finally:
        server.end()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
