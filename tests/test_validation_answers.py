"""What a refusal says, word by word: changed words are noticed, as callers' programs read some of them."""

from typing import Any

import httpx
import pytest

from tests.conftest import GatewayFactory

BASE = "/api/v1/tb"
QUERY = f"{BASE}/telemetry/query"


def fault(place: str, field: str, issue: str) -> dict[str, Any]:
    return {
        "field": field,
        "issue": issue,
        "errors": [{"in": place, "field": field, "issue": issue}],
    }


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/devices", {"name": "a", "tpye": "b"}, fault("body", "tpye", "unknown field")),
        ("/devices", {}, fault("body", "name", "Field required")),
        (
            "/devices",
            [],
            fault("body", "body", "Input should be a valid dictionary or object to extract fields from"),
        ),
        (
            "/relations",
            {"from": {"id": "name:a"}, "to": {"id": "name:b", "entity_type": "DEVICE"}, "type": "t"},
            fault("body", "from.entity_type", "Field required"),
        ),
    ],
    ids=["unknown", "missing", "of another type", "in an object"],
)
async def test_a_field_is_named_with_its_place_and_what_is_wrong(
    gateway: httpx.AsyncClient, path: str, body: Any, expected: dict[str, Any]
) -> None:
    answer = await gateway.post(BASE + path, json=body)
    assert answer.status_code == 422
    assert answer.json()["details"] == expected
    assert answer.json()["message"] == f"{expected['field']}: {expected['issue']}"


async def test_all_faults_are_named_and_the_first_is_the_message(gateway: httpx.AsyncClient) -> None:
    answer = (await gateway.post(QUERY, json={"device_ids": ["name:a"], "keys": [""], "limit": 0})).json()
    assert [each["field"] for each in answer["details"]["errors"]] == ["keys.0", "limit"]
    assert answer["message"].startswith("keys.0: ")


async def test_the_members_of_a_union_are_no_fields(gateway: httpx.AsyncClient) -> None:
    body = {"device_ids": ["name:a"], "keys": ["a"], "interval": "fortnight", "agg": "AVG", "start_ts": {}}
    fields = [each["field"] for each in (await gateway.post(QUERY, json=body)).json()["details"]["errors"]]
    assert "start_ts" in fields
    assert not {"int", "str"} & {part for field in fields for part in field.split(".")}


async def test_a_body_that_is_no_json_is_said_so(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(f"{BASE}/devices", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["message"] == "The request body is not valid JSON."
    assert answer.json()["details"] == {"field": "body", "issue": "not valid JSON"}


async def test_a_problem_has_the_type_and_title_of_rfc_9457(gateway: httpx.AsyncClient) -> None:
    headers = {"Accept": "application/problem+json"}
    answer = (await gateway.get(f"{BASE}/devices/name:nobody", headers=headers)).json()
    assert (answer["type"], answer["title"]) == ("about:blank", "Resource not found")


async def test_too_many_is_said_in_the_words_that_were_promised(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(rate_limit="1/hour")
    await gateway.get(f"{BASE}/whoami")
    answer = await gateway.get(f"{BASE}/whoami")
    body = answer.json()
    assert body["error"] == "Rate limit exceeded"
    assert body["detail"] == body["message"]
    assert str(body["retry_after"]) == answer.headers["retry-after"]
