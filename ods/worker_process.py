"""One worker as the keeper sees it: how far it has come, and whether it is on its way out."""

from enum import IntEnum

from ods.channel import Channel
from ods.child_process import ChildProcess


class Stage(IntEnum):
    """How far a worker has come."""

    #: It was given its go, and the connections.
    GIVEN = 1
    SERVING = 2


class WorkerProcess(ChildProcess):
    """It is given its go as soon as it is there."""

    def __init__(self, process_id: int, channel: Channel) -> None:
        super().__init__(process_id, channel)
        self.stage = Stage.GIVEN
        #: Whether ODS has just been started, so that an error of its options is told by ending.
        self.is_first = False
        #: Whether it is of a version that has yet to prove itself.
        self.is_on_trial = False
        self.is_handing_over = False

    @property
    def takes_connections(self) -> bool:
        """Whether new connections are to be handed to it; otherwise its successor gets them."""
        return not self.is_handing_over
