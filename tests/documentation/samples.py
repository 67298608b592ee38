"""The samples of the documentation: every fenced block of a page, how it is run, and what it must answer.

A page is a story: its samples run one after the other, in one shell, in an empty folder, with the demo behind
them. What a block is, its language says; what else there is to know stands in a comment right before it:

- `<!-- answers: 404 -->`: the last call of these lines gets this status; without it every call must succeed.
- `<!-- answer -->` on `json`, `jsonl` and `text`: what the sample before it answered, in the same shape.
- `<!-- body: POST /api/v1/tb/... -->` on `json`: sent there, and taken.
- `<!-- checked by: tests/... -->`: that test names this page, or runs these very lines.
- `<!-- not run: why -->`: neither is possible. `python -m tests.documentation.samples` lists these.

`toml` and `env` are loaded by what loads them in the gateway, `mermaid` is drawn by the test of the site. A
block in any other language needs one of the last two comments.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Where `scripts/demo` listens, as the pages have it.
WRITTEN_ADDRESS = "127.0.0.1:8000"
BLOCK = re.compile(
    r"^(?:[ ]*<!-- (?P<mark>[^\n]+) -->\n+)?^[ ]*```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^[ ]*```$",
    re.DOTALL | re.MULTILINE,
)
SHELL = frozenset({"bash", "sh"})
#: Programs that read a sample from their standard input.
PROGRAMS = {"python": "python -", "javascript": "node --input-type=module -"}
LOADED = frozenset({"toml", "env"})
ANSWERS = frozenset({"json", "jsonl", "text"})
#: Starts every output, and every error output, of a sample.
SEPARATOR = "\x1e"
PRELUDE = """set -e
curl() { command curl "$@" -w '%{stderr}HTTP %{http_code}\\n'; }
"""
#: Members whose values are never twice the same.
VOLATILE = frozenset({"timestamp", "request_id", "elapsed_ms", "retry_after", "ts"})


@dataclass(frozen=True)
class Sample:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def place(self) -> str:
        """Where it stands, as editors take it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def marked(self, kind: str) -> str | None:
        """Return what follows `kind:` in the comment before the block, or None without such a comment."""
        return self.mark.removeprefix(f"{kind}:").strip() if self.mark.startswith(f"{kind}:") else None

    @property
    def is_excused(self) -> bool:
        """Whether something else looks after it, or a reason is given."""
        return self.marked("not run") is not None or self.marked("checked by") is not None

    @property
    def command(self) -> str | None:
        """The shell lines that run it, or None where it is no program."""
        body = self.marked("body")
        if self.is_excused:
            return None
        if self.language in SHELL:
            return self.text
        if self.language in PROGRAMS:
            return _fed_to(PROGRAMS[self.language], self.text)
        if body:
            method, path = body.split(" ", 1)
            headers = '-H "X-API-Key: $API_KEY" -H "Content-Type: application/json"'
            return _fed_to(
                f'curl -sS -X {method} {headers} --data-binary @- "http://{WRITTEN_ADDRESS}{path}"', self.text
            )
        return None

    @property
    def is_understood(self) -> bool:
        """Whether there is a way to check it."""
        return (
            self.is_excused
            or self.command is not None
            or self.language in LOADED | {"mermaid"}
            or (self.mark == "answer" and self.language in ANSWERS)
        )


def _fed_to(program: str, text: str) -> str:
    return f"{program} <<'END OF THE SAMPLE'\n{text}END OF THE SAMPLE\n"


def samples_of(page: Path) -> list[Sample]:
    """Return the samples of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Sample(
            page,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["text"],
            found["mark"] or "",
        )
        for found in BLOCK.finditer(text)
    ]


def script_of(samples: Sequence[Sample], address: str) -> str:
    """Return one shell script of all that run, which says in both outputs where each begins."""
    parts = [PRELUDE]
    for number, sample in enumerate(samples):
        if sample.command is not None:
            parts += [f"printf '{SEPARATOR}{number}{SEPARATOR}' | tee /dev/stderr\n", sample.command]
    return "".join(parts).replace(WRITTEN_ADDRESS, urlsplit(address).netloc)


def outputs_of(text: str) -> dict[int, str]:
    """Return what each sample wrote, by its number."""
    _, *parts = text.split(SEPARATOR)
    return dict(zip(map(int, parts[::2]), parts[1::2], strict=True))


def check_statuses(sample: Sample, errors: str) -> None:
    """Every call succeeded, or the last one as the comment says."""
    statuses = [int(status) for status in re.findall(r"^HTTP (\d+)$", errors, re.MULTILINE)]
    expected = sample.marked("answers")
    if expected is not None:
        assert statuses, f"{sample.place}: nothing was called"
        assert statuses.pop() == int(expected), f"{sample.place}: {errors}"
    wrong = [status for status in statuses if status // 100 != 2 and status != 304]
    assert not wrong, f"{sample.place}: {wrong}\n{errors}"


def check_answer(sample: Sample, output: str) -> None:
    """What the page shows has the shape of what came."""
    if sample.language == "json":
        shown, came = json.loads(sample.text), _last_json(output)
        assert came is not None, f"{sample.place}: no JSON came:\n{output}"
        exact = isinstance(shown, dict) and "error_code" in shown
        faults = list(differences(shown, came, exact=exact))
    else:
        shown_lines, lines = sample.text.splitlines(), output.splitlines()
        assert len(lines) >= len(shown_lines), f"{sample.place}: only\n{output}"
        pairs = zip(shown_lines, lines, strict=False)
        faults = [f"{shown!r} and {came!r}" for shown, came in pairs if not _are_alike(shown, came)]
    assert not faults, f"{sample.place}: " + "; ".join(faults)


def _last_json(text: str) -> Any:
    decoder, position, last = json.JSONDecoder(), 0, None
    while (start := text.find("{", position)) >= 0:
        try:
            last, position = decoder.raw_decode(text, start)
        except ValueError:
            position = start + 1
    return last


def _are_alike(shown: str, came: str) -> bool:
    """Lines of NDJSON and of event streams have members alike; other lines are the same."""
    fields = [re.fullmatch(r"(data: )?(\{.*\})", line) for line in (shown, came)]
    if fields[0] and fields[1]:
        return not list(differences(json.loads(fields[0][2]), json.loads(fields[1][2])))
    if shown.startswith("id: "):
        return came.startswith("id: ")
    return shown == came


def differences(shown: Any, came: Any, where: str = "", *, exact: bool = False) -> Iterator[str]:
    """Yield where a shown value has other members or types than what came; `exact`: other values, too."""
    if isinstance(shown, Mapping) and isinstance(came, Mapping):
        if shown.keys() != came.keys():
            yield f"{where or 'members'}: {sorted(shown.keys() ^ came.keys())} on one side only"
        for name in shown.keys() & came.keys():
            inner_exact = exact and name not in VOLATILE
            yield from differences(shown[name], came[name], f"{where}.{name}", exact=inner_exact)
    elif isinstance(shown, list) and isinstance(came, list):
        if shown and not came:
            yield f"{where}: nothing came"
        for number, (left, right) in enumerate(zip(shown, came, strict=False)):
            yield from differences(left, right, f"{where}[{number}]", exact=exact)
    elif _kind(shown) is not _kind(came) or (exact and shown != came):
        yield f"{where}: {shown!r} is shown, {came!r} came"


def _kind(value: Any) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


if __name__ == "__main__":
    excused = [sample for page in PAGES for sample in samples_of(page) if sample.marked("not run")]
    told = [f"{each.place}: {each.marked('not run')}\n" for each in excused]
    sys.stdout.write("".join([*told, f"{len(excused)} samples are not run\n"]))
