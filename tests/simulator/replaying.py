"""Replays the recorded run against a simulator, exchange by exchange, in the order of the original run."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tb_simulator.makers import make_asset, make_device, profile_for
from tb_simulator.server import Simulator
from tb_simulator.world import Settings
from tests.simulator.comparing import Ids, differences, shape_differences, types_by_key

RECORDINGS = Path(__file__).parent.parent / "recordings"
FRAMES = "websocket_frames"
QUIET_SECONDS = 0.02
#: Of waits that have to run out.
TIME_SCALE = 0.005

# Lists that ThingsBoard sorts by ids or by what its database happens to do.
UNORDERED = re.compile(r"/relations|/keys/|/values/attributes|Profiles$|/deviceProfile/names|/tenant/assets$")
BY_ID = re.compile(r"/api/(tenant/device|customer/[^/]+/device|deviceProfileInfos)")

Exchange = dict[str, Any]
Key = tuple[str, int, str]


def load(name: str) -> list[Exchange]:
    """Return the exchanges of one file."""
    exchanges: list[Exchange] = json.loads((RECORDINGS / f"{name}.json").read_text("utf-8"))
    return exchanges


def all_files() -> list[str]:
    """Return the names of the files of exchanges."""
    return sorted(path.stem for path in RECORDINGS.glob("*.json") if path.stem != FRAMES)


def all_keys() -> list[Key]:
    """Return what must be replayed: every exchange and every frame of the server."""
    keys = [(name, at, e["name"]) for name in all_files() for at, e in enumerate(load(name))]
    frames = [f for f in load(FRAMES) if f["direction"] == "server"]
    return keys + [(FRAMES, at, f"server frame {at}") for at in range(len(frames))]


class Replay:
    """One replay. ``problems`` holds, for each exchange played, how it differed."""

    def __init__(self, simulator: Simulator, client: httpx.AsyncClient) -> None:
        self.simulator, self.client, self.ids = simulator, client, Ids()
        self.problems: dict[Key, list[str]] = {}
        self.files = {name: load(name) for name in all_files()}
        self.types: dict[str, set[type]] = {}
        for exchanges in self.files.values():
            for exchange in exchanges:
                types_by_key(exchange["response"].get("json"), self.types)
        self._next = dict.fromkeys(self.files, 0)
        self.tokens: dict[str, str] = {}
        self.api_key = ""
        self.device_token = ""

    async def run(self) -> None:
        """Replay everything."""
        await self._log_in()
        await self._pair_ids()
        for name in ("profiles", "auth"):
            await self.play(name)
        await self.play("devices", until="by unknown name")
        self.device_token = (await self._device_credentials())["credentialsId"]
        await self.play("assets", until="delete")
        for name in ("telemetry", "attributes"):
            await self.play(name)
        await self.play("device_transport", until="device polls for rpc")
        for name in ("relations", "entity_query"):
            await self.play(name)
        await self._play_rpc()
        for name in ("api_keys", "customer"):
            await self.play(name)
        await self.play("devices", until="delete")
        await self._play_rate_limit()
        await self.play("alarms")
        await self._play_frames()
        for name in ("devices", "assets"):
            await self.play(name)

    async def _log_in(self) -> None:
        for user in ("tenant", "customer"):
            login = {"username": f"{user}@thingsboard.org", "password": user}
            answer = (await self.client.post("/api/auth/login", json=login)).json()
            self.tokens[user], self.tokens[f"{user} refresh"] = answer["token"], answer["refreshToken"]

    async def _get(self, path: str) -> Any:
        headers = {"X-Authorization": f"Bearer {self.tokens['tenant']}"}
        return (await self.client.get(path, headers=headers)).json()

    async def _device_credentials(self) -> Any:
        recorded = self.files["devices"][0]["response"]["json"]["id"]["id"]
        return await self._get(f"/api/device/{self.ids.replace(recorded)}/credentials")

    def _recorded(self, name: str, exchange: str) -> Any:
        return next(e["response"]["json"] for e in self.files[name] if e["name"] == exchange)

    async def _pair_ids(self) -> None:
        whole = "?pageSize=1000&page=0"
        devices = self._recorded("devices", "list page size 10000")["data"]
        self.ids.learn(self._recorded("auth", "who am i"), await self._get("/api/auth/user"))
        self.ids.learn_by_name(devices, (await self._get(f"/api/tenant/devices{whole}"))["data"])
        profiles = self._recorded("profiles", "device profiles")["data"]
        self.ids.learn_by_name(profiles, (await self._get(f"/api/deviceProfiles{whole}"))["data"])
        profiles = self._recorded("profiles", "asset profiles")["data"]
        self.ids.learn_by_name(profiles, (await self._get(f"/api/assetProfiles{whole}"))["data"])
        assets = self._recorded("assets", "list")["data"]
        self.ids.learn_by_name(assets, (await self._get(f"/api/tenant/assets{whole}"))["data"])

    def _take(self, name: str) -> Iterator[tuple[int, Exchange]]:
        while self._next[name] < len(self.files[name]):
            at = self._next[name]
            yield at, self.files[name][at]
            self._next[name] = at + 1

    async def play(self, name: str, *, until: str | None = None) -> None:
        """Play a file's exchanges, up to the first of that name that is still to come."""
        for at, exchange in self._take(name):
            if exchange["name"] == until:
                return
            await self.exchange(name, at, exchange)

    async def one(self, name: str) -> httpx.Response:
        """Play a file's next exchange."""
        at = self._next[name]
        self._next[name] = at + 1
        return await self.exchange(name, at, self.files[name][at])

    async def exchange(self, name: str, at: int, exchange: Exchange, **path_values: Any) -> httpx.Response:
        """Send one recorded request and note how the answer differs."""
        request = exchange["request"]
        answer = await self.client.request(
            request["method"],
            self._path(request["path"], **path_values),
            params=json.loads(self.ids.replace(json.dumps(request.get("query")))),
            content=self._body(exchange),
            headers=self._headers(exchange),
            follow_redirects=False,
        )
        if exchange["name"] == "create" and name == "api_keys":
            self.api_key = answer.json()["value"]
        self.problems[(name, at, exchange["name"])] = self._compare(exchange, answer)
        return answer

    def _path(self, path: str, **values: Any) -> str:
        path = self.ids.replace(path).replace("TS9wdY9qfDAZ3iO51yNA", self.device_token)
        return path.replace("<id>", str(values.get("number")))

    def _body(self, exchange: Exchange) -> bytes | None:
        request = exchange["request"]
        if "raw" in request:
            return str(request["raw"]).encode()
        if "json" not in request:
            return None
        body = self.ids.replace(json.dumps(request["json"]))
        body = body.replace("<password>", "tenant").replace("<jwt>", self.tokens["tenant refresh"])
        # The expiry of the persistent call was ten minutes ahead.
        ahead = str(self.simulator.world.now() + 600_000)
        return body.replace("1795320981800", ahead).encode()

    def _headers(self, exchange: Exchange) -> dict[str, str]:
        request, token = exchange["request"], self.tokens["tenant"]
        headers = {"Content-Type": "application/json"}
        if request.get("auth") is not False:
            return {**headers, "X-Authorization": f"Bearer {token}"}
        if exchange["name"] == "tampered token":
            token = token[:-6] + ("AAAAAA" if not token.endswith("AAAAAA") else "BBBBBB")
        elif exchange in self.files["customer"]:
            token = self.tokens["customer"]
        given = request.get("headers") or {}
        masks = (("<jwt>", token), ("tb_<key>", self.api_key))
        for name, value in given.items():
            for mask, real in masks:
                value = value.replace(mask, real)  # noqa: PLW2901 - masks are taken off one by one
            headers[name] = value
        return headers

    def _compare(self, exchange: Exchange, answer: httpx.Response) -> list[str]:
        response, path = exchange["response"], exchange["request"]["path"]
        found = []
        if answer.status_code != response["status"]:
            found.append(f"status {response['status']} became {answer.status_code}: {answer.text[:200]}")
        if "content_type" in response and answer.headers.get("content-type") != response["content_type"]:
            found.append(f"{response['content_type']} became {answer.headers.get('content-type')}")
        if "text" in response and self.ids.replace(response["text"]) != answer.text:
            found.append(f"{response['text']!r} became {answer.text!r}")
        if "json" not in response or found:
            return found
        actual = answer.json()
        query = exchange["request"].get("query") or {}
        if BY_ID.match(path) and "data" in response["json"] and not query.get("textSearch"):
            return shape_differences(response["json"], actual, self.types)
        if not isinstance(actual, dict) or "data" not in actual:
            self.ids.learn(response["json"], actual)
        unordered = UNORDERED.search(path) is not None
        return differences(response["json"], actual, self.ids, unordered=unordered)

    async def _play_rpc(self) -> None:
        for at, exchange in self._take("rpc"):
            polls = "answers" in exchange["name"] or exchange["name"].endswith("device online")
            if not polls:
                await self.exchange("rpc", at, exchange)
                continue
            await self._play_with_device(at, exchange)

    async def _play_with_device(self, at: int, exchange: Exchange) -> None:
        """Send a call to a device that waits for one: what it takes or answers is never too late."""
        settings, rpcs = self.simulator.world.settings, self.simulator.world.rpcs
        settings.time_scale = 1.0
        device = asyncio.create_task(self._device_side(answers="device answers" in exchange["name"]))
        while not any(line.polls for line in rpcs._lines.values()):  # noqa: ASYNC110 - turns of the loop
            await asyncio.sleep(0)
        if "never answers" in exchange["name"]:
            settings.time_scale = TIME_SCALE
        await asyncio.gather(device, self.exchange("rpc", at, exchange))
        settings.time_scale = TIME_SCALE

    async def _device_side(self, *, answers: bool) -> None:
        polled = await self.one("device_transport")
        if answers:
            at = self._next["device_transport"]
            self._next["device_transport"] = at + 1
            exchange = self.files["device_transport"][at]
            await self.exchange("device_transport", at, exchange, number=polled.json()["id"])

    async def _play_rate_limit(self) -> None:
        self.simulator.faults.rate_limit("3:1,10:60")
        calls = self.files["rate_limit"]
        await self.one("rate_limit")
        for _ in range(2):
            await self._get("/api/tenant/devices?pageSize=1&page=0")
        for _ in calls[1:]:
            await self.one("rate_limit")
        self.simulator.faults.rate_limit(None)

    async def _play_frames(self) -> None:
        player = _Frames(self)
        await player.run()


# Which uploads come before which of the server's frames.
_UPLOAD_BEFORE = frozenset({1, 2, 5, 6, 7, 10, 14})


class _Frames:
    """Plays the WebSocket session."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._url = replay.simulator.url.replace("http", "ws") + "/api/ws"
        self._at = 0

    async def run(self) -> None:
        frames = iter(load(FRAMES))
        for _ in range(3):
            async with connect(self._url, ping_interval=None) as socket:
                await self._session(socket, frames)

    async def _session(self, socket: ClientConnection, frames: Iterator[dict[str, Any]]) -> None:
        for frame in frames:
            if frame["direction"] == "note":
                return
            if frame["direction"] == "client":
                text = self._replay.ids.replace(json.dumps(frame["message"]))
                await socket.send(text.replace("<jwt>", self._replay.tokens["tenant"]))
                continue
            if self._at in _UPLOAD_BEFORE:
                await self._replay.one("websocket")
            problems = await self._expect(socket, frame["message"])
            self._replay.problems[(FRAMES, self._at, f"server frame {self._at}")] = problems
            self._at += 1

    async def _expect(self, socket: ClientConnection, recorded: dict[str, Any]) -> list[str]:
        try:
            wait = QUIET_SECONDS if "<none>" in recorded else 5
            actual = json.loads(await asyncio.wait_for(socket.recv(), wait))
        except TimeoutError:
            return [] if "<none>" in recorded else ["no frame came"]
        except websockets.ConnectionClosed as closed:
            actual = {"<closed>": [closed.rcvd.code, closed.rcvd.reason] if closed.rcvd else None}
        if "<none>" in recorded:
            return [f"a frame came: {actual}"]
        # Points within a frame are unsorted (facts).
        return differences(recorded, actual, self._replay.ids, unordered=True)


@asynccontextmanager
async def replay_ready() -> Any:
    """Yield a replay against a world with what the recorded ThingsBoard already held."""
    settings = Settings(time_scale=TIME_SCALE, active_lag_seconds=3600)
    simulator = Simulator(settings)
    world = simulator.world
    tenant = next(world.every("TENANT")).id
    for name in (
        "thermostat-de41d9",
        "thermostat-d6da3d",
        "thermostat-7a6809",
        "kind-8df628-0",
        "kind-8df628-1",
    ):
        profile_for(world, "DEVICE", tenant, name)
    for run in ("-de41d9", "-d6da3d", "-7a6809", ""):
        for name in ("building", "floor"):
            profile_for(world, "ASSET", tenant, f"{name}{run}")
    make_device(world, tenant, "rc-9342b9db")
    make_asset(world, tenant, "rc-a-7cd95195")
    async with simulator, httpx.AsyncClient(base_url=simulator.url) as client:
        yield Replay(simulator, client)
