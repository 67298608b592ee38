"""Renders the Helm chart with Helm's own library.

It runs in a process of its own (`python -m tests.rendering`), for the library brings Go's runtime with it:
values come as a JSON list on standard input, what Helm makes of each goes to standard output.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "helm" / "thingsboard-gateway"
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """What a set of values leads to: an error, or manifests by kind, and Helm's findings."""

    error: str
    findings: list[str]
    manifests: dict[str, Manifest]


def render(*values: Manifest) -> list[Rendered]:
    """Render the chart once for each set of values."""
    command = [sys.executable, "-m", "tests.rendering"]
    result = subprocess.run(
        command, cwd=ROOT, input=json.dumps(values), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return [
        Rendered(
            error=each["error"],
            findings=each["findings"],
            manifests={
                found["kind"]: found for found in map(yaml.safe_load, each["files"].values()) if found
            },
        )
        for each in json.loads(result.stdout)
    ]


def main() -> None:
    """Answer one list of values."""
    import helm_python  # noqa: PLC0415 - only here, in a process of its own

    answers = []
    with helm_python.Chart.load(CHART) as chart:
        for values in json.load(sys.stdin):
            report = helm_python.lint(CHART, values, strict=True, kube_version="v1.27.0")
            answer: Manifest = {"error": "", "files": {}}
            answer["findings"] = [each["error"] for each in report["messages"] if each["severity"] > 1]
            try:
                chart.validate_schema(values)
                rendered = chart.render(values, name="trial", namespace="iot")
            except helm_python.HelmError as error:
                answer["error"] = str(error)
            else:
                answer["files"] = {name: text for name, text in rendered.items() if name.endswith(".yaml")}
            answers.append(answer)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
