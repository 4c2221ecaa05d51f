"""A native thread for work that may wait for a disk, so that gevent's hub never does.

gevent's own thread pool makes the caller wait until the thread is free, before it hands back anything to wait for; here
`submit` never waits. Jobs run one after the other, in order.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import gevent
from gevent import monkey
from gevent.event import AsyncResult

_P = ParamSpec("_P")
_R = TypeVar("_R")

_allocate_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
_start_new_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
_SimpleQueue: Callable[[], Any] = monkey.get_original("queue", "SimpleQueue")


_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")


def start_natively(function: Callable[[], None]) -> None:
    """Run a function in a native thread, beside gevent, which does not keep the process from ending."""
    _start_new_thread(function, ())


def sleep_natively(seconds: float) -> None:
    """Let a native thread sleep."""
    _sleep(seconds)


class Worker:
    """One named thread and its queue of jobs. It does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs = _SimpleQueue()
        self._done: deque[tuple[Any, Any, Any]] = deque()
        self._hub: Any = None
        self.waiting = 0
        #: How many jobs are done.
        self.done = 0
        self._job_began: float | None = None

    def start(self) -> None:
        """Begin to work; jobs submitted before wait until then."""
        if self._hub is None:
            self._hub = gevent.get_hub()
            _start_new_thread(self._work, ())

    @property
    def seconds_at_job(self) -> float:
        """How long the job that it is at has taken so far; 0 where there is none."""
        began = self._job_began
        return 0.0 if began is None else time.monotonic() - began

    def submit(self, job: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Any:
        """Queue a job; returns an `AsyncResult` of what it returns or raises."""
        result = AsyncResult()
        self.waiting += 1
        self._jobs.put((job, args, kwargs, result))
        return result

    def run(self, job: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Queue a job and let the greenlet wait for what it returns or raises."""
        returned: _R = self.submit(job, *args, **kwargs).get()
        return returned

    def finish(self, job: Callable[[], object], seconds: float) -> bool:
        """Queue a last job and wait for it at most so long, without the hub; returns whether it was done.

        For the end of the process alone: everything else stands still meanwhile.
        """
        done = _allocate_lock()
        done.acquire()
        self.waiting += 1
        self._jobs.put((_released(done, job), (), {}, AsyncResult()))
        return bool(done.acquire(timeout=seconds))

    def stop(self) -> None:
        """End the thread after the jobs that are queued."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (queued := self._jobs.get()) is not None:
            job, args, kwargs, result = queued
            self._job_began = time.monotonic()
            try:
                self._done.append((result, job(*args, **kwargs), None))
            except BaseException:  # noqa: BLE001 - whoever waits for the job gets it
                self._done.append((result, None, sys.exc_info()))
            self._job_began = None
            self._hub.loop.run_callback_threadsafe(self._deliver)

    def _deliver(self) -> None:
        while self._done:
            result, value, error = self._done.popleft()
            self.waiting -= 1
            self.done += 1
            if error is None:
                result.set(value)
            else:
                result.set_exception(error[1], error)


def _released(lock: Any, job: Callable[[], object]) -> Callable[[], None]:
    """A job that releases a lock when it has ended, however it did."""

    def run() -> None:
        try:
            job()
        finally:
            lock.release()

    return run
