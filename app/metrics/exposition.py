"""From the metrics of one process, or of all workers, to what Prometheus reads.

Workers write their metrics to files in one directory, which is made for each start of the server. Files of
workers that have ended are folded into one, so that no counter goes back and scrapes stay fast.
"""

import fcntl
import os
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from app.metrics.directory import DIRECTORY

#: Stands for the process id in the names of what ended workers have counted.
ENDED = "0"


def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the metrics of all workers and their media type. Takes tens of ms: call it in a thread.

    Args:
        accept: what the caller would like to read.
    """
    encode, media_type = choose_encoder(accept)
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        return encode(registry), media_type
    of_all = CollectorRegistry()
    MultiProcessCollector(of_all, path=directory)
    with (Path(directory) / "lock").open("w") as lock:
        # Another worker may be folding what this one would count twice.
        fcntl.flock(lock, fcntl.LOCK_EX)
        fold_ended(Path(directory))
        return encode(of_all), media_type


def fold_ended(directory: Path) -> None:
    """Add up what ended workers have counted, and drop what was true while they lived."""
    for path in directory.glob("*.db"):
        kind, _, process_id = path.stem.rpartition("_")
        if process_id == ENDED or is_running(int(process_id)):
            continue
        if not kind.startswith("gauge"):
            kept = MmapedDict(str(directory / f"{kind}_{ENDED}.db"))
            for key, value, _, _ in MmapedDict.read_all_values_from_file(path):
                kept.write_value(key, kept.read_value(key)[0] + value, 0.0)
            kept.close()
        path.unlink()


def is_running(process_id: int) -> bool:
    """Tell whether there is such a process."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
