"""Sign up, log in, stay logged in, log out."""

import asyncio
import base64
import hashlib
import json
from typing import Any

import httpx
import jwt
import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, text

from examples.smart_home.attempts import place_of
from examples.smart_home.errors import NotAuthenticated, Overloaded
from examples.smart_home.models import RefreshToken, User
from examples.smart_home.passwords import MOST_WAITING, Passwords
from examples.smart_home.tokens import Tokens
from tests.serving import serve
from tests.smart_home.conftest import PASSWORD, SECRET, WEB_SERVER, MakeProduct, Product


async def login(product: Product, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=product.url, trust_env=False) as client:
        return await client.post("/auth/login", json=body)


async def test_who_signs_up_is_logged_in_and_can_log_in_again(lonely: Product) -> None:
    alice = await lonely.person("alice")
    me = await alice.call("GET", "/auth/me")
    assert me == alice.tokens["user"] | {"email": "alice@example.com", "name": "Alice"}
    again = await login(lonely, email=" Alice@Example.COM ", password=PASSWORD)
    assert again.status_code == 200
    assert again.json()["user"] == me
    assert again.json()["token_type"] == "bearer"
    assert again.json()["expires_in"] == 900


async def test_an_address_has_one_account_however_it_is_written(lonely: Product) -> None:
    alice = await lonely.person("alice")
    body = {"email": "ALICE@example.com", "password": PASSWORD, "name": "Another"}
    answers = await asyncio.gather(*(alice.client.post("/auth/register", json=body) for _ in range(3)))
    assert {answer.status_code for answer in answers} == {409}
    assert answers[0].json()["error_code"] == "CONFLICT"


async def test_of_sign_ups_at_the_same_time_one_succeeds(lonely: Product) -> None:
    async with httpx.AsyncClient(base_url=lonely.url, trust_env=False) as client:
        body = {"email": "many@example.com", "password": PASSWORD, "name": "Many"}
        answers = await asyncio.gather(*(client.post("/auth/register", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


@pytest.mark.parametrize(
    ("email", "password"),
    [("alice@example.com", "wrong password"), ("nobody@example.com", PASSWORD), ("alice@example.com", "")],
)
async def test_a_refused_login_does_not_say_what_is_wrong(lonely: Product, email: str, password: str) -> None:
    await lonely.person("alice")
    answer = await login(lonely, email=email, password=password)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["message"] == "E-mail address or password is wrong."


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "no-address"}, "email"),
        ({"email": "a@b"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 129}, "password"),
        ({"name": "  "}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"is_admin": True}, "is_admin"),
    ],
)
async def test_bad_input_names_its_field(lonely: Product, change: dict[str, Any], field: str) -> None:
    body = {"email": "alice@example.com", "password": PASSWORD, "name": "Alice"} | change
    async with httpx.AsyncClient(base_url=lonely.url, trust_env=False) as client:
        answer = await client.post("/auth/register", json=body)
    assert answer.status_code == 422
    assert [fault["field"] for fault in answer.json()["details"]["fields"]] == [field]
    assert (
        str(next(iter(change.values()))) not in answer.text or field == "is_admin" or change == {"name": "  "}
    )


async def test_passwords_and_refresh_tokens_are_stored_as_hashes_only(lonely: Product) -> None:
    alice = await lonely.person("alice")
    async with lonely.app.state.services.database.sessions() as session:
        user = (await session.scalars(select(User))).one()
        token = (await session.scalars(select(RefreshToken))).one()
    assert user.password_hash.startswith("$argon2id$")
    assert token.digest == hashlib.sha256(alice.tokens["refresh_token"].encode()).hexdigest()


async def test_a_refresh_token_works_once_and_its_second_use_ends_the_session(lonely: Product) -> None:
    alice = await lonely.person("alice")
    first = alice.tokens["refresh_token"]
    second = (await alice.call("POST", "/auth/refresh", json={"refresh_token": first}))["refresh_token"]
    third = (await alice.call("POST", "/auth/refresh", json={"refresh_token": second}))["refresh_token"]
    await alice.call("POST", "/auth/refresh", 401, json={"refresh_token": first})
    await alice.call("POST", "/auth/refresh", 401, json={"refresh_token": third})


async def test_the_end_of_one_session_leaves_others_alone(lonely: Product) -> None:
    alice = await lonely.person("alice")
    other = (await login(lonely, email=alice.email, password=PASSWORD)).json()["refresh_token"]
    await alice.call("POST", "/auth/logout", 204, json={"refresh_token": alice.tokens["refresh_token"]})
    await alice.call("POST", "/auth/refresh", 401, json={"refresh_token": alice.tokens["refresh_token"]})
    await alice.call("POST", "/auth/refresh", json={"refresh_token": other})


async def test_of_two_uses_at_once_only_one_gets_new_tokens(lonely: Product) -> None:
    alice = await lonely.person("alice")
    body = {"refresh_token": alice.tokens["refresh_token"]}
    answers = await asyncio.gather(*(alice.client.post("/auth/refresh", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401]


async def test_a_page_gets_its_refresh_token_in_a_cookie_that_scripts_cannot_read(lonely: Product) -> None:
    alice = await lonely.person("alice")
    answer = await login(lonely, email=alice.email, password=PASSWORD, refresh_in="cookie")
    assert answer.json()["refresh_token"] is None
    cookie = answer.headers["Set-Cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/auth"} <= {part.strip() for part in cookie.split(";")}
    value = answer.cookies["smart_home_refresh"]
    refreshed = await alice.client.post("/auth/refresh", headers={"Cookie": f"smart_home_refresh={value}"})
    assert refreshed.status_code == 200
    assert refreshed.json()["refresh_token"] is None
    assert refreshed.cookies["smart_home_refresh"] != value


async def test_the_cookie_is_for_https_only_where_there_is_https(lonely: Product) -> None:
    alice = await lonely.person("alice")
    transport = httpx.ASGITransport(app=lonely.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://home.example.com") as client:
        body = {"email": alice.email, "password": PASSWORD, "refresh_in": "cookie"}
        assert "secure" in (await client.post("/auth/login", json=body)).headers["Set-Cookie"].lower()


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "make",
    [
        lambda claims: jwt.encode(claims, "another-secret-that-is-long-enough-here", algorithm="HS256"),
        lambda claims: jwt.encode(claims | {"iss": "somebody"}, SECRET, algorithm="HS256"),
        lambda claims: jwt.encode({**claims, "exp": 1}, SECRET, algorithm="HS256"),
        lambda claims: jwt.encode({"sub": claims["sub"], "iss": claims["iss"]}, SECRET, algorithm="HS256"),
        lambda claims: jwt.encode(claims | {"sub": "not-an-id"}, SECRET, algorithm="HS256"),
        lambda claims: jwt.encode(claims, SECRET * 2, algorithm="HS512"),
        lambda claims: f"{encoded({'alg': 'none'})}.{encoded(claims)}.",
        lambda claims: "garbage",
    ],
    ids=[
        "other secret",
        "other issuer",
        "over",
        "without end",
        "no id",
        "other algorithm",
        "none",
        "garbage",
    ],
)
async def test_a_token_that_is_not_ours_is_refused(lonely: Product, make: Any) -> None:
    alice = await lonely.person("alice")
    claims = jwt.decode(alice.tokens["access_token"], options={"verify_signature": False})
    headers = {"Authorization": f"Bearer {make(claims)}"}
    assert (await alice.client.get("/auth/me", headers=headers)).status_code == 401


async def test_nothing_is_shown_without_a_token(lonely: Product) -> None:
    document = lonely.app.openapi()
    identifier = "00000000-0000-4000-8000-000000000000"
    async with httpx.AsyncClient(base_url=lonely.url, trust_env=False) as client:
        for path, item in document["paths"].items():
            if path in {"/auth/register", "/auth/login", "/auth/refresh", "/auth/logout", "/health"}:
                continue
            for method in item:
                url = path.replace("{home_id}", identifier).replace("{room_id}", identifier)
                answer = await client.request(method, url)
                assert answer.status_code == 401, (method, path, answer.text)


async def test_a_session_ends_by_the_clock(make_product: MakeProduct) -> None:
    now = [1_760_000_000_000]
    app = make_product("http://127.0.0.1:9", clock=lambda: now[0])
    async with serve(app, **WEB_SERVER) as url:
        product = Product(url, app, [])
        alice = await product.person()
        now[0] += 15 * 60_000
        await alice.call("GET", "/auth/me", 401)
        refreshed = await alice.call(
            "POST", "/auth/refresh", json={"refresh_token": alice.tokens["refresh_token"]}
        )
        now[0] += 30 * 86_400_000
        await alice.call("POST", "/auth/refresh", 401, json={"refresh_token": refreshed["refresh_token"]})
        await login(product, email=alice.email, password=PASSWORD)
        async with app.state.services.database.sessions() as session:
            assert len((await session.scalars(select(RefreshToken))).all()) == 1, "old ones are swept"
        await product.aclose()


async def test_logins_are_limited_for_each_address(make_product: MakeProduct) -> None:
    app = make_product("http://127.0.0.1:9", login_limit="3/minute")
    async with serve(app, **WEB_SERVER) as url:
        product = Product(url, app, [])
        alice = await product.person()
        for _ in range(2):
            assert (await login(product, email=alice.email, password="wrong")).status_code == 401
        refused = await login(product, email=alice.email, password=PASSWORD)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        elsewhere = httpx.ASGITransport(app=app, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=elsewhere, base_url=url) as client:
            body = {"email": alice.email, "password": PASSWORD}
            assert (await client.post("/auth/login", json=body)).status_code == 200
        await product.aclose()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (None, "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_what_an_address_counts_as(address: str | None, place: str) -> None:
    assert place_of(address) == place


async def test_a_stronger_hash_replaces_an_old_one_at_login(lonely: Product) -> None:
    alice = await lonely.person("alice")
    database = lonely.app.state.services.database
    weaker = PasswordHasher(time_cost=1, memory_cost=16, parallelism=1).hash(PASSWORD)
    async with database.sessions.begin() as session:
        await session.execute(text("UPDATE users SET password_hash = :hash"), {"hash": weaker})
    assert (await login(lonely, email=alice.email, password=PASSWORD)).status_code == 200
    async with database.sessions() as session:
        assert (await session.scalars(select(User))).one().password_hash != weaker


async def test_more_passwords_than_can_be_hashed_are_refused_at_once() -> None:
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    many = (passwords.hash("x") for _ in range(MOST_WAITING + 5))
    results = await asyncio.gather(*many, return_exceptions=True)
    assert [type(each) for each in results].count(Overloaded) == 5
    assert (await passwords.hash("later")).startswith("$argon2id$")
    passwords.close()


def test_the_real_hashes_are_argon2s_recommended_ones() -> None:
    passwords = Passwords()
    hashed = asyncio.run(passwords.hash("a password"))
    assert "$m=65536,t=3,p=4$" in hashed
    passwords.close()


def test_a_token_says_nothing_but_whose_it_is() -> None:
    tokens = Tokens(SECRET, lifetime_seconds=60, clock=lambda: 1_760_000_000_000)
    with pytest.raises(NotAuthenticated):
        tokens.read("")
