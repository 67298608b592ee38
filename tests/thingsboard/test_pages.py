"""Pages that are passed on as they came are checked as if they had been decoded."""

import orjson
import pytest

from app.errors import UpstreamGarbled
from app.thingsboard.pages import pass_page

OBJECTS = '[{"name":"Größe","big":123456789012345678901234567890,"tiny":1e-320,"nested":[{"a":null}]}]'
REST = '"totalPages":2,"totalElements":28,"hasNext":true'


def test_objects_stay_as_they_came() -> None:
    page = pass_page(f'{{"more":1,"data":{OBJECTS},{REST}}}'.encode())
    assert orjson.dumps({"data": page.items}) == f'{{"data":{OBJECTS}}}'.encode()
    assert (page.total_pages, page.total_elements, page.has_next) == (2, 28, True)


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (f'{{"data":[{{"a":1}}{REST}'.encode(), "malformed_json"),
        (f'{{"data":[1,],{REST}}}'.encode(), "malformed_json"),
        (f'{{"data":["\\q"],{REST}}}'.encode(), "malformed_json"),
        (f'{{"data":["{chr(0xFF)}"],{REST}}}'.encode("latin-1"), "malformed_json"),
        (f'{{"data":[],{REST}}} trailing'.encode(), "malformed_json"),
        (b"", "malformed_json"),
        (b"<html>", "malformed_json"),
        (b"[]", "not_a_page"),
        (b"null", "not_a_page"),
        (f'{{"data":{{}},{REST}}}'.encode(), "not_a_page"),
        (f'{{"data":null,{REST}}}'.encode(), "not_a_page"),
        (f"{{{REST}}}".encode(), "not_a_page"),
        (b'{"data":[],"totalPages":"2","totalElements":28,"hasNext":true}', "not_a_page"),
        (b'{"data":[],"totalPages":2,"hasNext":true}', "not_a_page"),
    ],
)
def test_what_is_no_page_is_garbled(body: bytes, note: str) -> None:
    with pytest.raises(UpstreamGarbled) as caught:
        pass_page(body)
    assert caught.value.note == note
