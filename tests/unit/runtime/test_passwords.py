"""Passwords: what is compared, what is remembered, and whose turn it is. The comparison itself is a double that counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from virtflow.runtime.access import passwords as module
from virtflow.runtime.access.passwords import WAITING_EACH, BusyError, Login, Passwords, decoy

USERS = {"prometheus": b"$2y$12$" + b"a" * 53, "grafana": b"$2y$12$" + b"b" * 53}
SECRET = b"right"


class Verifier:
    """Says yes to the right password for a hash that somebody has, and notes what it was asked. ``gate`` holds it back."""

    def __init__(self) -> None:
        """Answers at once."""
        self.asked: list[tuple[bytes, bytes]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.gate.wait(10)
        self.asked.append((password, hashed))
        return password == SECRET and hashed in USERS.values()


class Counted:
    """How often it was called."""

    def __init__(self) -> None:
        """Never yet."""
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def run(scenario: Callable[[Passwords, Verifier, Counted], Awaitable[None]]) -> None:
    async def bounded() -> None:
        verifier, count = Verifier(), Counted()
        passwords = Passwords(count, verifier)
        try:
            await asyncio.wait_for(scenario(passwords, verifier, count), 10)
        finally:
            verifier.gate.set()
            passwords.close()

    asyncio.run(bounded())


def test_a_right_password_is_compared_once() -> None:
    async def scenario(passwords: Passwords, verifier: Verifier, count: Counted) -> None:
        del verifier
        for _ in range(3):
            assert await passwords.right(USERS, Login("prometheus", SECRET), "10.0.0.1")
        assert count.times == 1
        assert await passwords.right(USERS, Login("grafana", SECRET), "10.0.0.1")
        assert count.times == 2

    run(scenario)


def test_a_new_hash_is_compared_anew() -> None:
    """A password that was right for the old hash is not right for the new one."""

    async def scenario(passwords: Passwords, verifier: Verifier, count: Counted) -> None:
        del verifier
        assert await passwords.right(USERS, Login("prometheus", SECRET), "")
        changed = {"prometheus": b"$2y$12$" + b"c" * 53}
        assert not await passwords.right(changed, Login("prometheus", SECRET), "")
        assert not await passwords.right({}, Login("prometheus", SECRET), "")
        assert count.times == 3

    run(scenario)


@pytest.mark.parametrize("user", ["prometheus", "nobody"])
def test_an_unknown_user_costs_what_a_wrong_password_costs(user: str) -> None:
    """One comparison with a hash of the same cost for a new guess, none for one that was made before."""

    async def scenario(passwords: Passwords, verifier: Verifier, count: Counted) -> None:
        for guess in (b"1", b"2", b"2", b"1"):
            assert not await passwords.right(USERS, Login(user, guess), "")
        assert count.times == 2
        assert [hashed[:7] for _, hashed in verifier.asked] == [b"$2y$12$" if user in USERS else b"$2b$12$"] * 2

    run(scenario)


def test_an_unknown_user_is_refused_whatever_the_comparison_says() -> None:
    async def scenario() -> None:
        passwords = Passwords(lambda: None, lambda password, hashed: bool(password and hashed))
        assert not await passwords.right(USERS, Login("nobody", SECRET), "")
        assert not await passwords.right(USERS, Login("nobody", SECRET), "")
        passwords.close()

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_wrong_guesses_push_no_right_password_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 20)

    async def scenario(passwords: Passwords, verifier: Verifier, count: Counted) -> None:
        del verifier
        assert await passwords.right(USERS, Login("prometheus", SECRET), "")
        for number in range(30):
            assert not await passwords.right(USERS, Login("prometheus", b"%d" % number), "")
        before = count.times
        assert await passwords.right(USERS, Login("prometheus", SECRET), "")
        assert count.times == before

    run(scenario)


def test_one_who_guesses_waits_for_itself_only() -> None:
    """A second client's password is compared next, however many guesses of the first wait; more than its share are refused at once."""

    async def scenario(passwords: Passwords, verifier: Verifier, count: Counted) -> None:
        verifier.gate.clear()
        guesses = [asyncio.create_task(passwords.right(USERS, Login("prometheus", b"%d" % n), "10.0.0.1")) for n in range(WAITING_EACH + 1)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await passwords.right(USERS, Login("prometheus", b"more"), "10.0.0.1")
        honest = asyncio.create_task(passwords.right(USERS, Login("grafana", SECRET), "10.0.0.2"))
        await asyncio.sleep(0)
        verifier.gate.set()
        assert await honest
        assert not any(await asyncio.gather(*guesses))
        order = [password for password, _ in verifier.asked]
        assert order.index(SECRET) <= 2, "after the one under way and one of the other client at most"
        assert count.times == WAITING_EACH + 2

    run(scenario)


def test_the_same_guess_at_the_same_time_is_compared_once() -> None:
    async def scenario(passwords: Passwords, verifier: Verifier, count: Counted) -> None:
        verifier.gate.clear()
        same = [asyncio.create_task(passwords.right(USERS, Login("prometheus", SECRET), "10.0.0.1")) for _ in range(50)]
        await asyncio.sleep(0)
        verifier.gate.set()
        assert all(await asyncio.gather(*same))
        assert count.times == 1

    run(scenario)


def test_a_client_that_leaves_does_not_stop_the_line() -> None:
    async def scenario(passwords: Passwords, verifier: Verifier, count: Counted) -> None:
        del count
        verifier.gate.clear()
        leaving = asyncio.create_task(passwords.right(USERS, Login("prometheus", b"x"), "10.0.0.1"))
        staying = asyncio.create_task(passwords.right(USERS, Login("prometheus", SECRET), "10.0.0.1"))
        await asyncio.sleep(0)
        leaving.cancel()
        verifier.gate.set()
        assert await staying

    run(scenario)


def test_the_decoy_is_as_dear_as_the_dearest_hash() -> None:
    assert decoy({"a": b"$2a$05$" + b"a" * 53, "b": b"$2a$11$" + b"a" * 53})[:7] == b"$2b$11$"
    assert decoy({})[:7] == b"$2b$10$"


def test_bcrypt_itself() -> None:
    """Hashes as htpasswd, Go and Python write them, long passwords, and those with a zero byte."""
    import bcrypt

    async def scenario() -> None:
        passwords = Passwords(lambda: None)
        made = bcrypt.hashpw(b"right", bcrypt.gensalt(4))
        users = {"u": made}
        for prefix in (b"$2a", b"$2b", b"$2y"):
            users = {"u": prefix + made[3:]}
            assert await passwords.right(users, Login("u", b"right"), "")
            for wrong in (b"wrong", b"", b"right\0", b"right" * 100, "réçu".encode()):
                assert not await passwords.right(users, Login("u", wrong), "")
        long = {"u": bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))}
        assert await passwords.right(long, Login("u", b"x" * 100), ""), "as Go's bcrypt: 72 bytes count"
        assert not await passwords.right(users, Login("nobody", b"right"), "")
        passwords.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))
