"""The interface of a procedure: what the coordinator does with a session.

A procedure asks, accepts, combines and keeps checkpoints.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from server.outcome import Outcome
from server.session import Session


class Procedure(ABC):
    """A way to carry a study out.

    `name` is what a type of task says (configs/schema/task.py); `makes_model`, whether a model is left in the end.
    """

    name: ClassVar[str]
    makes_model: ClassVar[bool]

    @abstractmethod
    def run(self, session: Session) -> Outcome:
        """Carry the session's study out to its end, from its newest checkpoint if there is one.

        Raises:
            CheckpointError: the checkpoint cannot be used. PostponedError: hospitals that were ready are not there.
        """
