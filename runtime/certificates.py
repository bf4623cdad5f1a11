"""Certificates (PEM): whom they name, who has signed them, and from when to when they hold."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_END: Final = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate. ``names`` are its subject alternative names; times are Unix seconds."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    begins: float
    ends: float

    def problem(self, now: float) -> str:
        """Why it does not hold at ``now``; "" where it does."""
        if now < self.begins:
            return f"not valid before {day(self.begins)}"
        return f"expired on {day(self.ends)}" if now > self.ends else ""

    def __str__(self) -> str:
        """Names, issuer and dates in one line."""
        named = ", ".join(self.names) or self.subject
        return f"certificate for {named}, signed by {self.issuer}, valid from {day(self.begins)} to {day(self.ends)}"


def first_certificate(pem: str) -> Certificate:
    """The first certificate in a PEM text; raises ``ValueError`` where there is none."""
    head, end, _ = pem.partition(_END)
    if not end:
        raise ValueError("no PEM certificate")
    with in_memory(head + end + "\n") as path:
        try:
            # The one way to a certificate's fields that the standard library has.
            return from_fields(ssl._ssl._test_decode_cert(path))  # type: ignore[attr-defined]  # noqa: SLF001, see above
        except ssl.SSLError as error:
            raise ValueError(f"no PEM certificate: {error.reason or error}") from error


def from_fields(fields: Any) -> Certificate:  # noqa: ANN401, ``getpeercert``'s dictionary
    """A certificate from what ``SSLSocket.getpeercert`` returns."""
    return Certificate(
        _name(fields.get("subject", ())),
        _name(fields.get("issuer", ())),
        tuple(str(value) for _, value in fields.get("subjectAltName", ())),
        ssl.cert_time_to_seconds(fields["notBefore"]),
        ssl.cert_time_to_seconds(fields["notAfter"]),
    )


def common_name(fields: Any) -> str:  # noqa: ANN401, as above
    """The common name of the subject; "" where there is none."""
    return next((value for part in fields.get("subject", ()) for key, value in part if key == "commonName"), "")


@contextmanager
def in_memory(text: str) -> Iterator[str]:
    """The path of a file with this text, which no disk has: OpenSSL's functions take paths."""
    number = os.memfd_create("pem")
    try:
        os.write(number, text.encode())
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def day(moment: float) -> str:
    """A time as a date (UTC)."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def file_problem(path: Path, now: float | None = None) -> str:
    """Why a file's first certificate does not hold; "" where it does. An unreadable file is no certificate."""
    try:
        return first_certificate(path.read_text("utf-8")).problem(time.time() if now is None else now)
    except (OSError, ValueError) as error:
        return str(error)


def _name(parts: Any) -> str:  # noqa: ANN401, ``getpeercert``'s tuples
    return ", ".join(f"{key}={value}" for part in parts for key, value in part) or "nobody"
