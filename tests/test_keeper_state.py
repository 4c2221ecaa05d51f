"""What a keeper leaves to the next, and what the next makes of what it finds."""

import json

import pytest

from ods.errors import StateRefused
from ods.keeper_state import VERSION, ConnectionState, KeeperState, WorkerState, differs

STATE = KeeperState(
    listening=3,
    lock=4,
    bound={"host": "0.0.0.0", "port": 7778, "directory": "/var/lib/ods"},
    last_number=7,
    connections=(
        ConnectionState(number=2, socket=9, tape=10, address=("10.0.0.2", 4711), is_new=False),
        ConnectionState(number=7, socket=11, tape=None, address=("fe80::1", 4712), is_new=True),
    ),
    worker=WorkerState(process_id=99, channel=5),
    restarts={"total": 3, "latest": [{"time_ns": 1, "cause": "SIGKILL"}], "untold": 0},
    stored=("c2", "t2"),
)


def test_the_next_keeper_reads_what_this_one_writes() -> None:
    assert KeeperState.load(STATE.dump()) == STATE


def test_every_file_is_left_to_the_next() -> None:
    assert sorted(STATE.files) == [3, 4, 5, 9, 10, 11]


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"null", b"{}", STATE.dump()[:-9], b'{"version": 1, "connections": 3}']
)
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(StateRefused, match="cannot be read"):
        KeeperState.load(data)


@pytest.mark.parametrize("change", [{"lock": None, "more": 1}, {"worker": {}}, {"connections": [{"number": 1}]}])
def test_what_has_other_parts_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(StateRefused):
        KeeperState.load(json.dumps(json.loads(STATE.dump()) | change).encode())


def test_another_form_is_refused_by_its_number() -> None:
    other = json.loads(STATE.dump()) | {"version": VERSION + 1}
    with pytest.raises(StateRefused, match=f"form {VERSION + 1} .* reads {VERSION}"):
        KeeperState.load(json.dumps(other).encode())


def test_a_change_of_what_a_keeper_holds_is_named() -> None:
    assert differs(STATE.bound, STATE.bound | {"version": "2"}) is None
    reason = differs(STATE.bound, STATE.bound | {"port": 7779})
    assert reason is not None
    assert "--port is 7779 now" in reason and "--host" not in reason
