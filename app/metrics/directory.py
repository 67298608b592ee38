"""Where workers keep their metrics. prometheus_client looks for it as it is imported: not here."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

#: prometheus_client keeps metrics in files when this is set.
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
#: Linux has it wherever processes run, containers with a read-only root included.
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a folder of its own with a random name is made in it


@contextmanager
def directory_for(workers: int) -> Iterator[None]:
    """Give the workers that are started within an empty directory, which goes with them.

    It is in memory: the files are mapped, and a worker that writes to a map on a full disk dies of SIGBUS.
    Exports under way and others may fill `TMPDIR`, which is taken where there is no such memory. One worker
    alone keeps its metrics to itself.
    """
    os.environ.pop(DIRECTORY, None)
    if workers == 1:
        yield
        return
    memory = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(
        prefix="gateway-metrics-", dir=memory, ignore_cleanup_errors=True
    ) as directory:
        os.environ[DIRECTORY] = directory
        yield
