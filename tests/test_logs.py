"""Where log lines go."""

import io
import sys

import pytest
import structlog


class Broken(io.StringIO):
    """A disk that is full, or a pipe that nobody reads."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text[:0])


def test_a_line_that_cannot_be_written_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = structlog.get_logger("test")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Broken())
        log.info("lost")
    log.info("written")
    assert '"event":"written"' in capsys.readouterr().out
