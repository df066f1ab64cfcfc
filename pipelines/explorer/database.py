"""DuckDB, locked in: no files, no network, no extensions; a limit to its memory, and a deadline to every query.

Rows come in through Arrow. A value never stands in a statement, it is bound.
"""

import threading
from collections.abc import Callable, Sequence

import duckdb
import numpy as np
import pyarrow as pa

THREADS = 2
DEADLINE = 30.0  # seconds
_LOCKED = {
    "enable_external_access": "false", "autoload_known_extensions": "false", "autoinstall_known_extensions": "false",
    "temp_directory": "", "lock_configuration": "true",
}  # fmt: skip


class TooSlow(Exception):
    """A query that did not end before its deadline."""


class TooLarge(Exception):
    """More rows than memory may hold."""


class Database:
    """One database in memory, for several threads. `memory` is its limit in MB."""

    def __init__(self, memory: int):
        limits: dict = {"memory_limit": f"{memory}MB", "threads": str(THREADS), "preserve_insertion_order": "false"}
        self._connection = duckdb.connect(":memory:", config=limits | _LOCKED)

    def rows(self, statement: str, values: Sequence = ()) -> list[tuple]:
        """Run one statement and return its rows. Raises TooSlow and TooLarge."""
        return self._run(statement, values, lambda cursor: cursor.fetchall())

    def column(self, statement: str) -> np.ndarray:
        """Run one statement and return the one column of its rows, none of them null. Raises TooSlow and TooLarge."""
        return self._run(statement, (), lambda cursor: np.asarray(next(iter(cursor.fetchnumpy().values()))))

    def _run(self, statement: str, values: Sequence, fetch: Callable):
        cursor = self._connection.cursor()
        watch = threading.Timer(DEADLINE, cursor.interrupt)
        watch.start()
        try:
            return fetch(cursor.execute(statement, list(values)))
        except duckdb.InterruptException:
            raise TooSlow(f"no answer in {DEADLINE:.0f} s") from None
        except duckdb.OutOfMemoryException as error:
            raise TooLarge(str(error).splitlines()[0]) from None
        finally:
            watch.cancel()
            cursor.close()

    def add(self, name: str, rows: pa.Table) -> None:
        """Append Arrow rows to a table, which is made when it is not there. Raises TooLarge."""
        cursor = self._connection.cursor()
        try:
            cursor.register("batch", rows)
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {quoted(name)} AS SELECT * FROM batch LIMIT 0")
            cursor.execute(f"INSERT INTO {quoted(name)} SELECT * FROM batch")
        except duckdb.OutOfMemoryException as error:
            raise TooLarge(str(error).splitlines()[0]) from None
        finally:
            cursor.close()

    def drop(self, name: str) -> None:
        """Forget a table."""
        self.rows(f"DROP TABLE IF EXISTS {quoted(name)}")

    def close(self) -> None:
        """Stop what runs, and forget all."""
        self._connection.interrupt()
        self._connection.close()


def quoted(name: str) -> str:
    """Write a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
