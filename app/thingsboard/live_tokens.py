"""How the WebSocket to ThingsBoard is opened: it takes a JWT, never an API key."""

import ssl

from app.errors import CallerError, LoginRefused, UpstreamGarbled
from app.thingsboard.connection import Connection, expect_object
from app.thingsboard.web_socket import FeedSocket, open_socket

NO_LOGIN = (
    "Live data needs a ThingsBoard login, and the gateway's ThingsBoard API key gets none: it must belong "
    "to a tenant administrator, or TB_USERNAME and TB_PASSWORD be used instead. Tell the gateway's operator."
)


class FeedDialler:
    """Opens sockets for one credential.

    Args:
        origin: of ThingsBoard.
        tls: how it is trusted; None without TLS.
    """

    def __init__(self, connection: Connection, origin: str, tls: ssl.SSLContext | None) -> None:
        self._connection, self._origin, self._tls = connection, origin, tls
        self._header = ""

    async def open(self) -> FeedSocket:
        """Connect and authenticate.

        Raises:
            UpstreamError: among them LoginRefused, when no JWT is to be had.
        """
        self._header = await self._connection.credential.header()
        scheme, _, token = self._header.partition(" ")
        if scheme != "Bearer":
            token = await self._token_of_key()
        return await open_socket(self._origin, token, self._tls)

    async def renew(self) -> None:
        """Replace a login that the socket refused."""
        await self._connection.credential.renew(self._header)

    async def _token_of_key(self) -> str:
        """Return a JWT of the API key's own user, which tenant administrators can get (api_keys.json)."""
        user = expect_object(await self._connection.get_json("/api/auth/user", is_one_object=False))
        try:
            path = f"/api/user/{user['id']['id']}/token"
            # Asked for each time: a token of before may have died with the server's key.
            pair = expect_object(await self._connection.get_json(path, is_one_object=False, is_shared=False))
            return str(pair["token"])
        except (KeyError, TypeError):
            raise UpstreamGarbled(note="token_answer") from None
        except CallerError:
            raise LoginRefused(NO_LOGIN, note="no_live_token") from None
