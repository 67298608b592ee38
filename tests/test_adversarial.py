"""Every operation called by schemathesis with what nobody thought of."""

import httpx
import pytest

from tests.adversarial import run


@pytest.mark.timeout(600)
def test_every_answer_is_in_the_document_whatever_is_sent() -> None:
    done = run("--examples", "3")
    assert not {"502", "503"} & done.answers.keys()
    # Chains as made, changed, written, read, deleted, asked for again.
    assert done.links > 40
    assert done.too_late > 5


@pytest.mark.parametrize("query", ["?=1", "?=", "?page=0&=x"])
async def test_a_parameter_without_a_name_is_called_so(gateway: httpx.AsyncClient, query: str) -> None:
    """Found here: the answer named the field ''."""
    answer = await gateway.get(f"/api/v1/tb/devices{query}")
    assert answer.status_code == 422
    details = answer.json()["details"]
    assert details["field"] == "query"
    assert details["issue"].startswith("a parameter without a name")
