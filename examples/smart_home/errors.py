"""What can go wrong, as one tree: each class knows its HTTP status, its code and a sentence for people."""

from typing import Any


class ConfigurationError(Exception):
    """The settings are at fault; told at the start only."""


class SmartHomeError(Exception):
    """Something that the caller is told: ``message`` is shown to people as it stands."""

    status = 500
    code = "INTERNAL_ERROR"
    message = "Something went wrong on our side."

    def __init__(
        self,
        message: str | None = None,
        *,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message or self.message)
        self.message = message or self.message
        self.details, self.retry_after = details, retry_after


class InvalidRequest(SmartHomeError):
    """The request makes no sense."""

    status, code, message = 400, "VALIDATION_ERROR", "This request makes no sense."


class NotAuthenticated(SmartHomeError):
    """Nobody is logged in."""

    status, code, message = 401, "AUTHENTICATION_FAILED", "Please log in."


class NotAllowed(SmartHomeError):
    """Another site's page tries to use this one."""

    status, code, message = 403, "AUTHORIZATION_FAILED", "This page may not do that."


class NotFound(SmartHomeError):
    """There is no such thing, or it is somebody else's."""

    status, code, message = 404, "RESOURCE_NOT_FOUND", "There is no such thing here."


class Conflict(SmartHomeError):
    """It exists already."""

    status, code, message = 409, "CONFLICT", "This exists already."


class DeviceOffline(SmartHomeError):
    """The device has no connection, so nothing reached it."""

    status, code, message = 409, "DEVICE_OFFLINE", "The device is offline. Nothing was switched."


class TooManyAttempts(SmartHomeError):
    """A limit is used up."""

    status, code, message = 429, "RATE_LIMIT_EXCEEDED", "Too many attempts. Please wait a moment."


class GatewayFailed(SmartHomeError):
    """The gateway answered what cannot be used, or refused our key."""

    status, code, message = 502, "UPSTREAM_ERROR", "The devices cannot be reached at the moment."


class GatewayUnavailable(SmartHomeError):
    """The gateway, or ThingsBoard behind it, is away or busy."""

    status, code = 503, "UPSTREAM_UNAVAILABLE"
    message = "The devices cannot be reached at the moment. Please try again shortly."


class DatabaseUnavailable(SmartHomeError):
    """Our own database is away."""

    status, code = 503, "UNAVAILABLE"
    message = "This does not work at the moment. Please try again shortly."


class Overloaded(SmartHomeError):
    """More is asked for than can be done now."""

    status, code, message = 503, "OVERLOADED", "Too much is going on just now. Please try again shortly."


class DeviceSilent(SmartHomeError):
    """The device got the command, perhaps, and did not answer."""

    status, code, message = 504, "DEVICE_TIMEOUT", "The device did not answer in time."
