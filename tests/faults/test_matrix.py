"""The cells of the fault matrix that tell most; `scripts/fault_matrix` tries all of them.

Times are those of the command, ten times as generous: what must hold on any machine is what is answered, how
often ThingsBoard is asked, that nothing acknowledged is lost, and that nothing is left behind or told.
"""

from pathlib import Path

import pytest

from benchmarks.faults.catalogue import COLUMNS, FAULTS
from benchmarks.faults.matrix import log_leaks, run_row

CELLS = {
    "reset_before_head": ("read", "upload", "upload_now", "command", "stream"),
    "reset_mid_body": ("read", "upload", "export", "long_export"),
    "forgotten": ("read", "upload", "bulk", "listening"),
    "blackhole": ("read", "upload_now", "listening"),
    "malformed": ("read", "upload", "bulk", "stream"),
    "error_503": ("bulk", "long_export"),
    "voided": ("read", "bulk", "command"),
    "restart": ("read", "upload", "long_export", "listening"),
    "no_name": ("read", "stream", "listening"),
    "redis_silent": ("read", "upload"),
    "redis_full": ("read", "upload"),
    "broken_keys": ("read", "stream"),
}


@pytest.mark.parametrize("name", CELLS)
async def test_a_fault_is_answered_as_specified(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], needs_redis: None
) -> None:
    result = await run_row(FAULTS[name], tmp_path, columns=CELLS[name], patience=10.0)
    assert not result.problems
    assert {column: cell.problems for column, cell in result.cells.items() if cell.problems} == {}
    assert not log_leaks(capsys.readouterr().out)


def test_every_fault_says_what_each_kind_of_request_is_answered() -> None:
    for fault in FAULTS.values():
        assert fault.expected.keys() == COLUMNS.keys(), fault.name
        assert fault.caller, fault.name
        assert fault.operator, fault.name
