#!/usr/bin/env python3
"""Write `tb_api_sdk_openapi.json`, from which SDKs are generated. A test fails when it is stale."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tb_api_sdk_openapi.json"
sys.path.insert(0, str(ROOT))

from app.factory import create_app  # noqa: E402 - the path comes first
from app.settings import Settings  # noqa: E402 - as above


def render() -> str:
    """Return the document of a gateway with default settings, as text."""
    settings = Settings(
        _env_file=None,
        tb_host="https://thingsboard.example.com",
        tb_username="nobody",
        tb_password="only-the-routes-matter",  # noqa: S106 - nothing is called
        api_key="only-the-routes-matter",
    )
    return json.dumps(create_app(settings).openapi(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the document, or with `--check` say whether it is up to date."""
    if "--check" in sys.argv[1:]:
        if TARGET.read_text("utf-8") != render():
            sys.exit(f"❌ {TARGET.name} is stale: run scripts/generate_openapi_schema.py")
        print(f"✅ {TARGET.name} is up to date")
        return
    TARGET.write_text(render(), "utf-8")
    print(f"✅ wrote {TARGET.name}")


if __name__ == "__main__":
    main()
