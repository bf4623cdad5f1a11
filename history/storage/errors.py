"""What goes wrong with tables and their storage, as errors of ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError, DeltaProtocolError, TableNotFoundError

from virtflow.schemas.errors import EnvironmentProblemError, InputError


class StorageError(InputError):
    """The storage did not do what was asked: away, full, read-only, slow. Nothing was committed; it is worth trying again."""


class FencedError(InputError):
    """Somebody else has committed under the same name meanwhile: what was to be committed is void."""


class NewerTableError(EnvironmentProblemError):
    """A table of a layout or protocol that this program does not know: waiting does not help."""


class DamagedTableError(InputError):
    """A table's log or one of its files can't be read; the text names it."""


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """What the storage and the table library raise, as errors of ours."""
    try:
        yield
    except CommitFailedError as error:
        raise StorageError(f"{uri}: not committed: {short(error)}") from error
    except DeltaProtocolError as error:
        fix = "upgrade virtflow, or set history.path to another place"
        raise NewerTableError(thing="history table", value=uri, why=f"made by a newer program: {short(error)}", fix=fix) from error
    except (TableNotFoundError, MemoryError):
        raise
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise StorageError(f"{uri}: {short(error)}") from error
    finally:
        # What the table library did not foresee, as in a damaged checkpoint, is a panic of Rust: no Exception, and of a class without a module.
        panic = sys.exception()
        if panic is not None and type(panic).__name__ == "PanicException":
            raise StorageError(
                f"{uri}: the table library failed: {short(panic)}; `virtflow history verify` names what is damaged"
            ) from panic


@contextmanager
def made(uri: str) -> Iterator[None]:
    """A folder that can't be made, which the library takes for a table that is not there."""
    try:
        yield
    except TableNotFoundError as error:
        raise StorageError(f"{uri}: can't be made: {short(error)}") from error


def short(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split())[:300]
