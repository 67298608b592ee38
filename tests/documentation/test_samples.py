"""Every sample of the documentation is run, loaded or compared, or says why not."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import certifi
import pytest
from dotenv import dotenv_values

from app import upstream_file
from app.keys import key_file
from app.settings import Settings
from tb_simulator.server import Simulator
from tests.conftest import SettingsFactory
from tests.documentation import samples
from tests.documentation.samples import PAGES, ROOT, Sample, samples_of
from tests.documentation.stages import DEMO_KEY, STAGES, Theatre

ALL = [sample for page in PAGES for sample in samples_of(page)]
STORIES = [page for page in PAGES if any(sample.command is not None for sample in samples_of(page))]
SECRET = "a-secret-from-the-place-that-the-sample-names"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", STORIES, ids=name_of)
async def test_the_samples_of_a_page_run(
    page: Path, simulator: Simulator, make_settings: SettingsFactory, tmp_path: Path
) -> None:
    story = samples_of(page)
    if any(sample.language == "javascript" for sample in story) and shutil.which("node") is None:
        pytest.skip("node is not installed (Debian: apt-get install nodejs)")
    stage = STAGES.get(name_of(page), Theatre.demo)
    folder = tmp_path / "folder"
    folder.mkdir()
    async with stage(Theatre(simulator, make_settings, tmp_path)) as url:
        output, errors, code = await run(samples.script_of(story, url), folder)
    last = 0
    for number, sample in enumerate(story):
        if number in errors:
            last = number
            samples.check_statuses(sample, errors[number])
        elif sample.mark == "answer":
            samples.check_answer(sample, output[last])
    assert code == 0, f"{story[last].place}: {errors[last]}"


async def run(script: str, folder: Path) -> tuple[dict[int, str], dict[int, str], int | None]:
    """Run it as a user would who has just cloned the repository and set the demo's key."""
    programs = Path(sys.executable).parent
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "API_KEY": DEMO_KEY,
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
        },
        # No terminal: what asks for a key gets it from here.
        start_new_session=True,
    )
    output, errors = await process.communicate(f"{DEMO_KEY}\n".encode())
    outputs = (samples.outputs_of(each.decode()) for each in (output, errors))
    return *outputs, process.returncode


@pytest.mark.parametrize("sample", ALL, ids=lambda sample: sample.place)
def test_every_sample_has_a_way_to_be_checked(sample: Sample) -> None:
    assert sample.is_understood, (
        f"{sample.place}: nothing checks a block of {sample.language or 'no language'}"
        f" with the comment {sample.mark!r}; see {samples.__file__}"
    )
    reason = sample.marked("not run")
    assert reason is None or len(reason.split()) >= 2, f"{sample.place}: say why"


@pytest.mark.parametrize(
    "sample", [each for each in ALL if each.marked("checked by")], ids=lambda sample: sample.place
)
def test_what_another_test_checks_is_named_there(sample: Sample) -> None:
    test = ROOT / str(sample.marked("checked by"))
    text = test.read_text("utf-8")
    lines = [line for line in sample.text.splitlines() if line and not line.startswith("export ")]
    assert name_of(sample.page) in text or all(line in text for line in lines), f"{sample.place}: {test}"


@pytest.mark.parametrize(
    "sample", [each for each in ALL if each.language == "toml"], ids=lambda each: each.place
)
def test_files_are_loaded_by_what_loads_them(
    sample: Sample, make_settings: SettingsFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sample.is_excused:
        return
    text = re.sub(r'"(?:/[\w.-]+)+/([\w.-]+)"', rf'"{tmp_path}/\1"', sample.text)
    for name in re.findall(rf"{tmp_path}/([\w.-]+)", text):
        shutil.copy(certifi.where(), tmp_path / name) if name.endswith(".pem") else (
            tmp_path / name
        ).write_text(SECRET)
    for name in re.findall(r'_env = "(\w+)"', text):
        monkeypatch.setenv(name, SECRET)
    path = tmp_path / "sample.toml"
    path.write_text(text)
    if "[[keys]]" in text:
        assert len(key_file.parse(path.read_bytes())) == text.count("[[keys]]")
    else:
        loaded = upstream_file.load(make_settings(upstreams_file=path))
        assert len(loaded) == text.count("[[upstreams]]") + 1


@pytest.mark.parametrize(
    "sample", [each for each in ALL if each.language == "env"], ids=lambda each: each.place
)
def test_settings_are_read_as_the_gateway_reads_them(sample: Sample, tmp_path: Path) -> None:
    if sample.is_excused:
        return
    path = tmp_path / ".env"
    path.write_text(sample.text)
    assert Settings(_env_file=path)
    assert {name.lower() for name in dotenv_values(path)} <= set(Settings.model_fields)
