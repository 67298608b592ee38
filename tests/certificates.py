"""Certificates that nobody has signed."""

import subprocess
from pathlib import Path

from tests.processes import program


def self_signed(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """Make a certificate for this name and its key, in place of those before; return their paths."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = (
        *(program("openssl"), "req", "-x509", "-nodes", "-days", "2"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
        *("-keyout", key, "-out", certificate),
    )
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
