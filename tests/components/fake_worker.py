"""A worker for tests of the keeper: it speaks on the channel and does what its one option says."""

import json
import os
import socket
import sys
import time

channel = socket.socket(fileno=int(sys.argv[1]))
behaviour = sys.argv[2]


def say(said: str, **more: object) -> None:
    channel.send(json.dumps({"say": said, **more}).encode())


if behaviour == "fails":
    print("a warning\nwhat is wrong", file=sys.stderr)
    sys.exit(3)
say("ready", host="127.0.0.1", port=0, directory="")
if behaviour == "raves":
    for nonsense in (b"\xff", b"[]", b'{"say":1}', b'{"say":"closed","id":"x"}', b'{"say":"closed","id":999}', b"{}"):
        channel.send(nonsense)
    socket.send_fds(channel, [b'{"say":"beat"}'], [0, 1])
while True:
    data, files, _, _ = socket.recv_fds(channel, 65536, 4)
    if not data:
        sys.exit(0)
    message = json.loads(data)
    os.write(1, f"{message['do']} {message.get('is_new', '')} {len(files)}\n".encode())
    if message["do"] == "all":
        say("serving")
        if behaviour == "dies":
            sys.exit(1)
        if behaviour == "hangs":
            time.sleep(600)
        if behaviour == "closes":
            say("closed", id=1)
    for file in files:
        os.close(file)
    if message["do"] == "connection" and behaviour == "ends":
        say("entered", id=message["id"])
        say("closed", id=message["id"])
    if message["do"] == "stop":
        sys.exit(0)
    say("beat")
