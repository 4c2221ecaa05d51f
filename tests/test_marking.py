"""How a running ODS notes a mark: on the way that records take, answered when it is kept, counted by nobody."""

from collections.abc import Callable

import gevent
import pytest
from components.hub import fail_when_hung, wait_in_hub

from ods import marking
from ods.chunk import Chunk, settle
from ods.clock import Clock
from ods.ledger import Fate
from ods.marking import Marking, Noted
from ods.pods import Pods

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)


def a_marking(forward: Callable[[Chunk], None]) -> Marking:
    return Marking(clock=Clock(wall_ns=lambda: 5_000), ods=Pods({}, max_names=1).ods(), forward=forward)


def test_a_mark_is_an_event_and_a_row_of_the_recordings_and_no_point_of_the_ledger() -> None:
    forwarded: list[Chunk] = []
    a_marking(lambda chunk: (forwarded.append(chunk), settle([chunk], Fate.PENDING))[0]).note('test "3"')
    (chunk,) = forwarded
    time_ns = chunk.first_ns
    assert chunk.lines == b'ods_event,event=mark,pod=ods detail="test \\"3\\"" %d\n' % time_ns
    assert chunk.log_rows == b'%d,mark,"test ""3"""\n' % time_ns
    assert (chunk.pod, chunk.points, chunk.data_rows, chunk.last_ns) == ("ods", 0, b"", time_ns)


@pytest.mark.parametrize("fate", [Fate.STORED, Fate.PENDING, Fate.DROPPED])
def test_it_is_answered_once_its_fate_is_known(fate: Fate) -> None:
    """Until then ODS must not take for settled what is later: it would be missed after a crash."""
    forwarded: list[Chunk] = []
    marking = a_marking(forwarded.append)
    assert marking.oldest_ns is None
    one, other = (gevent.spawn(marking.note, text) for text in ("one", "other"))
    wait_in_hub(lambda: len(forwarded) == 2, "both marks are under way")
    assert not one.ready()
    assert marking.oldest_ns == forwarded[0].first_ns < forwarded[1].first_ns
    settle(forwarded[:1], fate)
    assert one.get() == Noted(forwarded[0].first_ns, fate)
    assert not other.ready()
    assert marking.oldest_ns == forwarded[1].first_ns
    settle(forwarded[1:], fate)
    other.get()
    assert marking.oldest_ns is None


def test_an_answer_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "PATIENCE_SECONDS", 0.01)
    noting = a_marking(lambda chunk: None)
    noted = noting.note("test")
    assert noted.fate is Fate.IN_FLIGHT
    assert noting.oldest_ns == noted.time_ns
