"""`python -m app.healthcheck`: exits with 0 when the gateway here answers. No imports but Python's."""

import http.client
import os
import ssl
import sys

TIMEOUT_SECONDS = 3
LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised here, not listened on


def main() -> int:
    """Ask for `/health/live`."""
    host = os.environ.get("HOST", "127.0.0.1")
    address = (LOOPBACK_OF.get(host, host), int(os.environ.get("PORT", "8000")))
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_SECONDS)
    if os.environ.get("SSL_CERTFILE"):
        # The certificate is made for the public name, not for loopback.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 - as said
        connection = http.client.HTTPSConnection(*address, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.request("GET", "/health/live")
        # With ALLOWED_HOSTS, loopback is refused as a name: an answer all the same.
        return int(connection.getresponse().status >= http.HTTPStatus.INTERNAL_SERVER_ERROR)
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
