"""What does a prediction cost in the application's process, against the same request by hand with `http.client`?

Both ask a bare server in another process that answers at once, over one kept connection; counted is the processor time
of this process. By hand means: build JSON, send, read JSON, no retries, no deadline, no check of the answer.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable

from leaven import AsyncClient, Client

CALLS, ROUNDS = 2_000, 5
ROW = {"carrier": "AA", "origin": "JFK", "dep_hour": 8, "dep_delay": 3.5}
ONE = {"prediction_id": "7c9e6679f7425a40de944be07fc1f907", "answer": 0.3125, "version": "3", "arm": "champion"}
BODY = json.dumps({"model": "flights", "predictions": [ONE | {"propensity": 1.0}]}).encode()
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)

SERVER = f"""
import asyncio
class Answer(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        if data.endswith(b"}}"): self.transport.write({REPLY!r})
async def main():
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def cost(call: Callable[[], object]) -> float:
    """Return the microseconds of processor time that one call takes here: the best of some rounds."""
    call()
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(CALLS):
            call()
        best = min(best, (time.process_time() - began) / CALLS)
    return best * 1e6


def by_hand(port: int) -> Callable[[], object]:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def call() -> object:
        connection.request("POST", "/v1/models/flights/predict", json.dumps({"rows": [ROW], "unit": "N1"}))
        return json.loads(connection.getresponse().read())

    return call


def asynchronous(url: str) -> float:
    async def measured() -> float:
        async with AsyncClient(url, timeout=60) as client:
            best = float("inf")
            for _ in range(ROUNDS):
                began = time.process_time()
                for _ in range(CALLS):
                    await client.predict("flights", ROW, unit="N1")
                best = min(best, (time.process_time() - began) / CALLS)
            return best * 1e6

    return asyncio.run(measured())


if __name__ == "__main__":
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        hand = cost(by_hand(port))
        with Client(f"http://127.0.0.1:{port}", timeout=60) as client:
            took = {"by hand": hand, "Client": cost(lambda: client.predict("flights", ROW, unit="N1"))}
        took["AsyncClient"] = asynchronous(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait()
    for name, micros in took.items():
        print(f"{name:12} {micros:6.0f} µs CPU per prediction  {micros / hand:4.2f} x by hand", file=sys.stderr)
    print(json.dumps({name: round(micros, 1) for name, micros in took.items()}))
