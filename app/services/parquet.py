"""Whole histories as Parquet files, row group by row group. pyarrow is an extra: nothing else imports it."""

import contextlib
from typing import IO, Any

import orjson
from anyio import to_thread

from app.errors import UnprocessableRequest
from app.services.exports import TIMES, VALUES
from app.services.history import Block
from app.thingsboard.telemetry import Point

#: A row group, all of which is in memory until it is written: by rows, and by bytes where values are large.
ROWS_A_GROUP, BYTES_A_GROUP = 100_000, 8 << 20
INT64 = range(-(2**63), 2**63)
MISSING = "parquet needs pyarrow, which is not installed here: operators find it in requirements/parquet.txt"


async def load() -> None:
    """Import pyarrow, which takes a tenth of a second and 40 MiB, off the event loop.

    Raises:
        UnprocessableRequest: it is not installed.
    """
    try:
        await to_thread.run_sync(_pyarrow)
    except ImportError:
        raise UnprocessableRequest(
            f"format: {MISSING}", details={"field": "format", "issue": MISSING}
        ) from None


def _pyarrow() -> tuple[Any, Any, Any]:
    import pyarrow  # type: ignore[import-untyped]  # noqa: ICN001, PLC0415 - costly: on first use only
    from pyarrow import compute, parquet  # noqa: PLC0415 - as above

    return pyarrow, compute, parquet


class ParquetFile:
    """`ts, key` and a column for each type of value, a row a point, by time. See `FileWriter`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._arrow, self._compute, parquet = _pyarrow()
        arrow = self._arrow
        self._schema = arrow.schema(
            [
                arrow.field("ts", arrow.timestamp("ms", tz="UTC"), nullable=False),
                arrow.field("key", arrow.string(), nullable=False),
                ("value_double", arrow.float64()),
                ("value_long", arrow.int64()),
                ("value_bool", arrow.bool_()),
                ("value_text", arrow.string()),
                ("value_json", arrow.string()),
            ]
        )
        self._writer = parquet.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            compression_level=1,
            # Dictionaries of numbers that seldom repeat take 12 MiB, and make the file larger.
            use_dictionary=["key", "value_text", "value_json"],
        )
        self._tables: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, block: Block) -> None:
        """Write a block, or keep it until there is enough for a row group."""
        batches = [self._batch(key, points) for key, points in block.items()]
        table = self._arrow.Table.from_batches(batches, self._schema)
        if len(batches) > 1:
            # Stable, so rows of one time stay in the order of their keys.
            table = table.take(self._compute.sort_indices(table["ts"]))
        self._tables.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= ROWS_A_GROUP or self._bytes >= BYTES_A_GROUP:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        if self._tables:
            self._flush()
        self._writer.close()
        self._arrow.default_memory_pool().release_unused()

    def discard(self) -> None:
        """Let go of the unfinished file."""
        # A writer that is collected writes the file's end, by then to a file that is closed.
        with contextlib.suppress(OSError, self._arrow.ArrowException):
            self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._arrow.concat_tables(self._tables), row_group_size=ROWS_A_GROUP)
        self._tables.clear()
        self._rows = self._bytes = 0

    def _batch(self, key: str, points: list[Point]) -> Any:
        arrow, count = self._arrow, len(points)
        columns = typed(list(map(VALUES, points)))
        arrays = [
            arrow.array(list(map(TIMES, points)), self._schema.field("ts").type),
            arrow.repeat(arrow.scalar(key), count),
        ]
        for field in list(self._schema)[2:]:
            values = columns.get(field.name)
            arrays.append(
                arrow.nulls(count, field.type) if values is None else arrow.array(values, field.type)
            )
        return arrow.RecordBatch.from_arrays(arrays, schema=self._schema)


def typed(values: list[Any]) -> dict[str, list[Any]]:
    """Sort values into columns by type, null where another column holds them.

    Every number is in `value_double`, so that one column serves for analysis; whole numbers are exact in
    `value_long` as well.
    """
    types = set(map(type, values))
    if types == {float}:
        return {"value_double": values}
    if types == {int} and min(values) in INT64 and max(values) in INT64:
        return {"value_double": list(map(float, values)), "value_long": values}
    return {
        "value_double": [float(value) if type(value) in {int, float} else None for value in values],
        "value_long": [value if type(value) is int and value in INT64 else None for value in values],
        "value_bool": [value if type(value) is bool else None for value in values],
        "value_text": [value if type(value) is str else None for value in values],
        "value_json": [
            orjson.dumps(value).decode() if isinstance(value, dict | list) else None for value in values
        ],
    }
