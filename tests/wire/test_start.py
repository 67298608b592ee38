"""What a start tells, over the real lifespan."""

import json

import pytest

from app.factory import create_app
from tb_simulator.server import Simulator
from tests.conftest import SYSADMIN, SettingsFactory
from tests.serving import serve


async def events(app_settings: object, capsys: pytest.CaptureFixture[str], wanted: str) -> dict[str, object]:
    """Return the first event of this name that a start logs."""
    app = create_app(app_settings)  # type: ignore[arg-type]  # the fixture's settings
    async with serve(app):
        await app.state.probe
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return next(line for line in lines if line["event"] == wanted)


async def test_a_good_login_is_told(
    make_settings: SettingsFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    told = await events(make_settings(), capsys, "thingsboard_ready")
    assert (told["authority"], told["version"]) == ("TENANT_ADMIN", [4, 3])


async def test_a_system_administrator_is_told(
    make_settings: SettingsFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    told = await events(
        make_settings(tb_username=SYSADMIN[0], tb_password=SYSADMIN[1]), capsys, "login_refused"
    )
    assert "system administrator" in str(told["hint"])


async def test_an_old_thingsboard_is_told(
    make_settings: SettingsFactory, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.faults.malformed(path="system/info", body='{"version":"3.5.1"}')
    told = await events(make_settings(), capsys, "thingsboard_too_old")
    assert told["version"] == [3, 5]


async def test_a_start_without_thingsboard_serves_and_says_so(
    make_settings: SettingsFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    told = await events(make_settings(tb_host="http://127.0.0.1:9"), capsys, "thingsboard_not_ready")
    assert told["error_type"] == "UpstreamUnreachable"
