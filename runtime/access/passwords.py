"""Passwords against bcrypt hashes, so that no client slows another one.

A comparison takes tens of milliseconds. So what was found is remembered, right and wrong apart, so that wrong guesses never push a right
password out; comparisons run in one thread of low priority; and clients take turns: one that sends a thousand guesses waits for its
own, and past ``WAITING_EACH`` gets ``BusyError``. An unknown user costs the same comparison, with a hash of the same cost, as a wrong password.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from virtflow.runtime.access.web_config import bcrypt_cost
from virtflow.schemas.errors import InputError

WAITING_EACH: Final = 8
"""Comparisons that one client may have waiting."""
CLIENTS: Final = 256
"""Clients that may have comparisons waiting."""
REMEMBERED: Final = 4_096
"""Right, and wrong, passwords that are remembered, by their digests under a key of this process."""
BCRYPT_BYTES: Final = 72
"""bcrypt takes no more of a password."""
NICENESS: Final = 10
DEFAULT_COST: Final = 10

Verify = Callable[[bytes, bytes], bool]


class BusyError(InputError):
    """Too many passwords of this client wait to be compared."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a client sends: user and password as they came."""

    user: str
    password: bytes


@dataclass(slots=True, eq=False)
class _Job:
    hashed: bytes
    password: bytes
    done: asyncio.Future[bool]


class Passwords:
    """Compares passwords for one server. Belongs to its event loop, except for the comparison itself."""

    def __init__(self, count: Callable[[], object], verify: Verify | None = None) -> None:
        """``count`` is called for each comparison; ``verify`` compares a password with a hash: bcrypt's own by default."""
        self._count = count
        self._verify = verify or _bcrypt
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Future[bool]] = {}
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None
        self._working = False

    async def right(self, users: Mapping[str, bytes], login: Login, client: str) -> bool:
        """Whether the password is the user's; raises ``BusyError`` where ``client`` (an address) has too many waiting."""
        hashed = users.get(login.user)
        digest = self._digest(login, hashed or b"")
        if hashed is not None and digest in self._right:
            self._right.move_to_end(digest)
            return True
        if digest in self._wrong:
            return False
        if digest not in self._under_way:
            self._enqueue(digest, _Job(hashed or decoy(users), login.password, asyncio.get_running_loop().create_future()), client)
        return await asyncio.shield(self._under_way[digest]) and hashed is not None

    def close(self) -> None:
        """Lets the thread go."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _digest(self, login: Login, hashed: bytes) -> bytes:
        parts = hashlib.blake2b(key=self._key, digest_size=32)
        for part in (login.user.encode("utf-8", "surrogateescape"), hashed, login.password):
            parts.update(len(part).to_bytes(8, "big") + part)
        return parts.digest()

    def _enqueue(self, digest: bytes, job: _Job, client: str) -> None:
        if client not in self._waiting and len(self._waiting) >= CLIENTS:
            raise BusyError("too many clients wait for a password to be checked")
        mine = self._waiting.setdefault(client, deque())
        if len(mine) >= WAITING_EACH:
            raise BusyError("too many passwords of this client wait to be checked")
        mine.append(job)
        self._under_way[digest] = job.done
        job.done.add_done_callback(lambda done: self._found(digest, done))
        self._go_on()

    def _go_on(self) -> None:
        """Hands the next comparison to the thread: each client's oldest in turn."""
        if self._working or not self._waiting:
            return
        client, mine = self._waiting.popitem(last=False)
        job = mine.popleft()
        if mine:
            self._waiting[client] = mine  # at the end of the line
        self._working = True
        self._count()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords", initializer=_step_back)
        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._thread, self._verify, job.password[:BCRYPT_BYTES], job.hashed).add_done_callback(
            lambda compared: self._compared(job, compared)
        )

    def _compared(self, job: _Job, compared: asyncio.Future[bool]) -> None:
        self._working = False
        if not job.done.done():
            if compared.cancelled():
                job.done.cancel()
            elif (error := compared.exception()) is not None:
                job.done.set_exception(error)
            else:
                job.done.set_result(compared.result())
        self._go_on()

    def _found(self, digest: bytes, done: asyncio.Future[bool]) -> None:
        self._under_way.pop(digest, None)
        if done.cancelled() or done.exception() is not None:
            return
        place = self._right if done.result() else self._wrong
        place[digest] = None
        if len(place) > REMEMBERED:
            place.popitem(last=False)


_DECOY_END: Final = b"." * 53


def decoy(users: Mapping[str, bytes]) -> bytes:
    """A hash that no password has, as dear as the users': an unknown user is compared with it."""
    costs = [cost for hashed in users.values() if (cost := bcrypt_cost(hashed.decode()))]
    return b"$2b$%02d$" % max(costs, default=DEFAULT_COST) + _DECOY_END


def _bcrypt(password: bytes, hashed: bytes) -> bool:
    import bcrypt

    # A zero byte ends a password for bcrypt's first implementations, and is refused by others: nobody's password has one.
    same = bcrypt.checkpw(password.replace(b"\0", b"\xff"), hashed)
    return same and b"\0" not in password


def _step_back() -> None:
    """Gives this thread a lower priority than the one that answers."""
    with suppress(OSError):  # a service without the right to do so compares at its own priority
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
