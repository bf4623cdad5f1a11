"""Whether the consumer is a member of its group, and how it leaves.

librdkafka (2.16) may stay out of its group for good after a broker was away for longer than the session: seen once in 250 restarts of a broker, with
the coordinator lost in the moment in which the session ended. The client is connected then, answers every call, and is given nothing more; another
client joins at once. A client that joins has an id as a member, from the coordinator's first answer on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from virtflow.history.writer.pace import Pace

_LOG: Final = logging.getLogger("virtflow.history.writer.membership")

LEAVE_SECONDS: Final = 10.0
"""How long a client that stayed out of its group may take to end: it waits for its group."""


class Membership:
    """One consumer's place in its group. Belongs to the consumer's thread."""

    def __init__(self, consumer: Any, answered: Callable[[], bool], pace: Pace) -> None:  # noqa: ANN401, the client's class or a double
        """``answered`` tells whether the brokers have answered lately."""
        self._consumer = consumer
        self._answered = answered
        self._pace = pace
        self._out_since: float | None = None
        self._is_stranded = False

    def stranded(self, now: float) -> bool:
        """Whether it has been in no group for ``Pace.stranded`` seconds, in which the brokers answered: it will not join any more."""
        if self._consumer.memberid() or not self._answered():
            self._out_since = None
            return False
        self._out_since = now if self._out_since is None else self._out_since
        if now - self._out_since < self._pace.stranded:
            return False
        _LOG.warning("the consumer has been out of its group for %.0f s although the brokers answer", now - self._out_since)
        self._is_stranded = True
        return True

    def leave(self) -> None:
        """Ends the client. One that was stranded may not end: after ``LEAVE_SECONDS`` it is left behind, since another one reads in its place."""
        if not self._is_stranded:
            self._consumer.close()
            return
        leaving = threading.Thread(target=self._consumer.close, name="leave", daemon=True)
        leaving.start()
        leaving.join(LEAVE_SECONDS)
        if leaving.is_alive():
            _LOG.warning("the client that stayed out of its group does not end: it is left behind")
