"""Small shapes that the stores and the world share."""


def reference(kind: str, identifier: str) -> dict[str, str]:
    """Return ThingsBoard's ``{"entityType","id"}``."""
    return {"entityType": kind, "id": identifier}
