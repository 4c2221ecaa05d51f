"""The limit: how fast InfluxDB takes ready-made line protocol over one connection, posted by a process of its own."""

import http.client
import time
from multiprocessing.connection import Connection

from bench.points import BODY_POINTS, addresses, bodies


def post(connection: Connection, port: int, database: str, pods: int, points: int) -> None:
    """Asked, posts so many points in bodies of 5000; answers points a second."""
    made = bodies(points, addresses(pods), size=BODY_POINTS)
    client = _client(connection, port)
    connection.recv()
    began = time.monotonic()
    for body in made:
        _post(client, database, body)
    connection.send(points / (time.monotonic() - began))
    connection.recv()


def post_single(connection: Connection, port: int, database: str) -> None:
    """Asked for so many seconds, posts one point at a time; answers points a second."""
    made = bodies(100_000, addresses(1), size=1)
    client = _client(connection, port)
    (seconds,) = connection.recv()
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        _post(client, database, made[count % len(made)])
        count += 1
    connection.send(count / (time.monotonic() - began))
    connection.recv()


def _client(connection: Connection, port: int) -> http.client.HTTPConnection:
    """Connected, and said so."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.connect()
    connection.send(None)
    return client


def _post(client: http.client.HTTPConnection, database: str, body: bytes) -> None:
    client.request("POST", f"/write?db={database}", body)
    answer = client.getresponse()
    said = answer.read()
    if answer.status != 204:
        raise OSError(f"InfluxDB answers {answer.status}: {said!r}")
