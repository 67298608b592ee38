"""Where workers keep their metrics. prometheus_client looks for it as it is imported: not here."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

#: prometheus_client keeps metrics in files when this is set.
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def directory_for(workers: int) -> Iterator[None]:
    """Give the workers that are started within an empty directory, which goes with them.

    `TMPDIR` says where. One worker alone keeps its metrics in memory.
    """
    os.environ.pop(DIRECTORY, None)
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="gateway-metrics-", ignore_cleanup_errors=True) as directory:
        os.environ[DIRECTORY] = directory
        yield
