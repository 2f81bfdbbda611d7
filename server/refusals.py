"""Requests that the door refuses: the status and the sentence of the answer."""


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is not forwarded: the status and the sentence that are answered."""

    def __init__(self, status: int, why: str, who: str = "") -> None:
        super().__init__(why)
        self.status, self.why, self.who = status, why, who
