"""The bound of memory: heavy pods pause for a moment, light ones never, and only beyond the limit is refused."""

import gevent
import pytest
from components.hub import fail_when_hung, let_all_run, wait_in_hub

import ods.admission
from ods.admission import GROWTH, LEAST_READ_BYTES, LIMIT_BYTES, MOST_READ_BYTES, PAUSE_SECONDS, Admission

hang_fails = pytest.fixture(autouse=True)(fail_when_hung)

#: Longer than any test may take.
FOR_EVER_SECONDS = 3600.0


class Timer:
    """A clock that stands in for `time` in `ods.admission`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def admission() -> Admission:
    """Pauses above 100 bytes, refuses beyond 1000."""
    return Admission(limit_bytes=1000, pause_bytes=100)


def take(admission: Admission, pod: str, size_bytes: int) -> bool:
    """Take a chunk in, then pause where that is due, as a connection does."""
    is_taken = admission.admit(pod, size_bytes)
    if admission.is_to_pause(pod):
        admission.pause(pod, lambda: None)
    return is_taken


def begun(admission: Admission, pod: str, size_bytes: int) -> gevent.Greenlet:
    """Begin to take a chunk in; returns when that is done or pauses."""
    taken = gevent.spawn(take, admission, pod, size_bytes)
    let_all_run()
    return taken


def pauses_last(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(ods.admission, "PAUSE_SECONDS", seconds)


def test_the_bounds_are_those_of_the_contract() -> None:
    """64 MiB in flight; no pod is paused for longer than 250 ms."""
    assert (LIMIT_BYTES, PAUSE_SECONDS) == (64 * 1024 * 1024, 0.25)


@pytest.mark.parametrize("pods", [1, 4, 100, 1000, 2000, 5000])
def test_what_all_pods_send_at_once_fits(pods: int) -> None:
    """However many they are: before any of them is known to be a heavy one, each has been read from once."""
    admission = Admission()
    for _ in range(pods):
        admission.enter()
    assert admission.read_bytes == MOST_READ_BYTES or pods > 100, "a few floods are read in small pieces"
    refused = 0
    for number in range(pods):
        size_bytes = admission.read_bytes
        assert LEAST_READ_BYTES <= size_bytes <= MOST_READ_BYTES
        refused += not admission.admit(str(number), GROWTH * size_bytes)
    assert refused == 0
    before = admission.read_bytes
    for _ in range(pods):
        admission.leave()
    assert admission.read_bytes >= before


def test_what_is_in_flight_is_counted(admission: Admission) -> None:
    """Bytes count from their admission to their release."""
    assert admission.admit("a", 40)
    assert admission.admit("b", 50)
    assert admission.in_flight_bytes == 90
    admission.release("a", 40)
    admission.release("b", 50)
    assert admission.in_flight_bytes == 0


def test_nobody_pauses_while_there_is_room(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the mark a chunk is taken in at once."""
    pauses_last(monkeypatch, FOR_EVER_SECONDS)
    for _ in range(10):
        assert begun(admission, "a", 10).ready()


def test_a_pause_ends_when_there_is_room(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod goes on as soon as what is in flight has become less."""
    pauses_last(monkeypatch, FOR_EVER_SECONDS)
    admission.admit("a", 100)
    taken = begun(admission, "a", 50)
    assert not taken.ready()
    admission.release("a", 50)
    assert taken.get()
    assert admission.in_flight_bytes == 100


def test_every_pod_that_pauses_goes_on_when_there_is_room(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only the first of them."""
    pauses_last(monkeypatch, FOR_EVER_SECONDS)
    admission.admit("a", 80)
    admission.admit("b", 80)
    taken = [begun(admission, pod, 20) for pod in "ab"]
    assert not any(one.ready() for one in taken)
    admission.release("a", 80)
    admission.release("b", 80)
    assert [one.get() for one in taken] == [True, True]


def test_a_pause_ends_without_room(admission: Admission) -> None:
    """Where the stores stand still the pod is read on, up to the limit of memory."""
    assert take(admission, "a", 150)
    assert admission.in_flight_bytes == 150


def test_a_pause_is_not_prolonged_by_room_that_is_too_small(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is fixed when it begins: neither what is released nor what comes in meanwhile begins it again."""
    timer = Timer()
    monkeypatch.setattr(ods.admission, "time", timer)
    pauses_last(monkeypatch, FOR_EVER_SECONDS)
    taken = begun(admission, "a", 150)
    assert not taken.ready()
    timer.now = FOR_EVER_SECONDS  # the pause is over when it is looked at next
    admission.release("a", 60)
    admission.admit("a", 60)
    assert taken.get()


def test_a_pod_whose_turn_finds_no_room_pauses_on(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others have taken in between the room and the turn counts: many pods do not all read into the same room."""
    pauses_last(monkeypatch, FOR_EVER_SECONDS)
    turns: list[int] = []

    def turn() -> None:
        turns.append(admission.in_flight_bytes)
        if len(turns) == 1:
            admission.admit("a", 90)  # another connection of the pod was first

    admission.admit("a", 150)
    pausing = gevent.spawn(admission.pause, "a", turn)
    let_all_run()
    assert not turns
    admission.release("a", 100)
    let_all_run()
    assert turns == [50]
    assert not pausing.ready()
    admission.release("a", 100)
    pausing.get()
    assert turns == [50, 40]


def test_a_turn_is_waited_for_without_a_pause_too(admission: Admission) -> None:
    """Where there is room, only the turn is waited for."""
    turns: list[str] = []
    admission.pause("a", lambda: turns.append("turn"))
    assert turns == ["turn"]


def test_there_is_one_pause_only_while_the_stores_stand_still(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading must not crawl beside a store that hangs; after a release there are pauses again."""
    pauses_last(monkeypatch, 0.001)
    assert take(admission, "a", 110)
    pauses_last(monkeypatch, FOR_EVER_SECONDS)
    assert begun(admission, "a", 10).ready()
    admission.release("a", 10)
    assert not begun(admission, "a", 10).ready()


def test_a_light_pod_does_not_pause(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading pauses from the heaviest pods only."""
    pauses_last(monkeypatch, FOR_EVER_SECONDS)
    admission.admit("light", 5)
    admission.admit("heavy", 100)
    assert begun(admission, "light", 20).ready()
    assert begun(admission, "new", 20).ready()
    assert not begun(admission, "heavy", 20).ready()


def test_only_beyond_the_limit_is_refused(admission: Admission) -> None:
    """Exactly up to the limit is taken in; what is refused is not counted as in flight."""
    assert admission.admit("a", 1000)
    assert not admission.admit("a", 1)
    assert not admission.admit("b", 1)
    assert admission.in_flight_bytes == 1000
    admission.release("a", 1000)
    assert admission.admit("b", 1)


def test_many_pods_at_the_limit_never_exceed_it(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound holds for all chunks together, whoever pauses meanwhile."""
    pauses_last(monkeypatch, 0.01)
    pods = [gevent.spawn(take, admission, f"pod {number}", 30) for number in range(100)]
    wait_in_hub(lambda: all(pod.ready() for pod in pods), "every pod's admission")
    assert admission.in_flight_bytes == 30 * sum(pod.value for pod in pods) == 990
