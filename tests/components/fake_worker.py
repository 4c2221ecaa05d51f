"""A zygote and its workers for tests of the keeper: they speak on the channel and do what the one option says."""

import json
import os
import socket
import sys
import time

channel = socket.socket(fileno=int(sys.argv[1]))
behaviour = sys.argv[2]


def say(said: str, **more: object) -> None:
    channel.send(json.dumps({"say": said, **more}).encode())


def fork() -> int | None:
    """Fork twice, so that the worker is a child of the keeper; its number here, None in the worker."""
    ours, theirs = os.pipe()
    between = os.fork()
    if not between:
        if worker := os.fork():
            os.write(theirs, str(worker).encode())
            os._exit(0)
        return None
    os.close(theirs)
    worker = int(os.read(ours, 20))
    os.close(ours)
    os.waitpid(between, 0)
    return worker


def be_zygote() -> socket.socket:
    """Fork workers; returns in each, with its channel."""
    if behaviour == "fails":
        print("a warning\nwhat is wrong", file=sys.stderr)
        sys.exit(3)
    say("ready", host="127.0.0.1", port=0, directory="")
    asked = 0
    while True:
        data, files, _, _ = socket.recv_fds(channel, 65536, 1)
        if not data:
            sys.exit(0)
        asked += 1
        if behaviour == "forks late" and asked < 3:
            say("not forked", reason="no process left")
        elif (worker := fork()) is None:
            return socket.socket(fileno=files[0])
        else:
            say("forked", id=worker)
        os.close(files[0])


channel = be_zygote()
if behaviour == "raves":
    for nonsense in (b"\xff", b"[]", b'{"say":1}', b'{"say":"closed","id":"x"}', b'{"say":"closed","id":999}', b"{}"):
        channel.send(nonsense)
    socket.send_fds(channel, [b'{"say":"beat"}'], [0, 1])
while True:
    data, files, _, _ = socket.recv_fds(channel, 65536, 4)
    if not data:
        sys.exit(0)
    message = json.loads(data)
    if message["do"] == "beat":  # the answer to one
        continue
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
