"""How faults begin and end: what is done to a row of sites and to what surrounds them."""

from collections.abc import Awaitable, Callable

from benchmarks.faults.proxy import Cut
from benchmarks.faults.site import Site, keys_document
from benchmarks.faults.surroundings import Redis, Row
from benchmarks.processes import BenchmarkFailed

#: Everything but the device's own interface, with which the gateway has nothing to do.
REST = r"^/api/(?!v1/)"

Step = Callable[[Row], Awaitable[None]]


def each(act: Callable[[Site], object]) -> Step:
    """Do something at every site."""

    async def step(row: Row) -> None:
        for site in row.sites.values():
            act(site)

    return step


def cut_streams(site: Site) -> None:
    """End ThingsBoard's WebSockets, so that the feed has to come back while the fault lasts."""
    site.simulator.world.feed.cut_sessions()


@each
def heal(site: Site) -> None:
    """End what the proxy and the simulator do wrong."""
    site.proxy.heal()
    site.simulator.faults.clear()
    site.clock.skew_ms = 0


def proxied(**attributes: object) -> Step:
    """Set attributes of the proxy."""

    def act(site: Site) -> None:
        for name, value in attributes.items():
            setattr(site.proxy, name, value)

    return each(act)


def cutting(cut: Cut) -> Step:
    """Break all answers at this place, a WebSocket's handshake too."""

    def act(site: Site) -> None:
        site.proxy.cut = cut
        cut_streams(site)

    return each(act)


def forgetting(*, silently: bool) -> Step:
    """Forget the connections that there are."""
    return each(lambda site: site.proxy.forget_connections(silently=silently))


def simulated(kind: str, **options: object) -> Step:
    """Have ThingsBoard answer so, and refuse WebSockets."""

    def act(site: Site) -> None:
        site.simulator.faults.add(kind, path=REST, **options)
        cut_streams(site)

    return each(act)


def rate_limited(limits: str) -> Step:
    """Limit the tenant."""
    return each(lambda site: site.simulator.faults.rate_limit(limits))


@each
def expire_tokens(site: Site) -> None:
    """Let all access tokens be over."""
    site.simulator.faults.expire_tokens()


@each
def void_tokens(site: Site) -> None:
    """Void all tokens, as a new signing key does."""
    site.simulator.faults.change_signing_key()
    cut_streams(site)


@each
def refuse_logins(site: Site) -> None:
    """Void all tokens and know the password no more."""
    site.simulator.faults.change_signing_key()
    site.simulator.faults.status(401, path="^/api/auth/login")
    cut_streams(site)


def skewed(ms: int) -> Step:
    """Set ThingsBoard's clock."""

    def act(site: Site) -> None:
        site.clock.skew_ms = ms

    return each(act)


async def go_away(row: Row) -> None:
    """Refuse connections and cut those that there are."""
    for site in row.sites.values():
        await site.proxy.stop_listening()
        await site.simulator.stop_listening()


async def come_back(row: Row) -> None:
    """Listen again; data and tokens are as they were."""
    for site in row.sites.values():
        await site.simulator.start_listening()
        await site.proxy.start_listening()


async def forget_name(row: Row) -> None:
    """Let the name be unknown when it is needed next."""
    row.names.is_known = False
    await reset_connections(row)


async def silence_names(row: Row) -> None:
    """Let nobody answer when the name is needed next."""
    row.names.fall_silent()
    await reset_connections(row)


@each
def reset_connections(site: Site) -> None:
    """Reset what is open."""
    site.proxy.reset_connections()


async def restore_names(row: Row) -> None:
    """Know the name again."""
    row.names.recover()


def redis_of(row: Row) -> Redis:
    """Return the row's Redis."""
    if row.redis is None:
        raise BenchmarkFailed("this fault needs a row with Redis")
    return row.redis


async def kill_redis(row: Row) -> None:
    """End it as a failing machine does."""
    redis_of(row).server.kill()


async def start_redis(row: Row) -> None:
    """Start it anew, with nothing in it."""
    await redis_of(row).server.start()


async def slow_redis(row: Row) -> None:
    """Let each of its answers come later than the gateway waits."""
    redis_of(row).proxy.delay = lambda: 0.2


async def stall_redis(row: Row) -> None:
    """Let it keep its connections and answer nothing."""
    redis_of(row).server.pause()


async def resume_redis(row: Row) -> None:
    """Let it answer again, at once."""
    redis = redis_of(row)
    redis.server.resume()
    redis.proxy.heal()


async def fill_redis(row: Row) -> None:
    """Leave no room in it."""
    await redis_of(row).fill()


async def empty_redis(row: Row) -> None:
    """Make room in it."""
    await redis_of(row).empty()


@each
def break_keys_file(site: Site) -> None:
    """Leave half of the key file, as a full disc does."""
    site.keys_file.write_text(keys_document()[:-20], "utf-8")


@each
def remove_keys_file(site: Site) -> None:
    """Delete the key file."""
    site.keys_file.unlink()


@each
def restore_keys_file(site: Site) -> None:
    """Write the key file as it was."""
    site.keys_file.write_text(keys_document(), "utf-8")
