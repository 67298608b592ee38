"""Devices and assets in paths: which kind, and which one (a UUID, or `name:` and the exact name)."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator

from app.deps import UpstreamDep
from app.services.addressing import check_reference, resolve
from app.thingsboard.entities import EntityType


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two kinds of entity that share the telemetry and attribute routes."""

    entity_type: EntityType
    word: str
    plural: str
    article: str

    @property
    def id_field(self) -> str:
        """Name of the id in paths and answers."""
        return f"{self.word}_id"

    @property
    def path(self) -> str:
        """Path of one such entity."""
        return f"/{self.plural}/{{{self.id_field}}}"

    def operation(self, template: str) -> str:
        """Fill `get_{}latest`: `get_latest` for devices, `get_asset_latest` for assets."""
        return template.format("" if self.entity_type == "DEVICE" else f"{self.word}_")


DEVICE = Kind("DEVICE", "device", "devices", "a")
ASSET = Kind("ASSET", "asset", "assets", "an")


@dataclass(frozen=True, slots=True)
class Entity:
    """The entity that a path names, looked up."""

    kind: Kind
    id: str

    @property
    def type(self) -> str:
        """ThingsBoard's name of its type."""
        return self.kind.entity_type

    @property
    def identified(self) -> dict[str, Any]:
        """Return the id as answers carry it."""
        return {self.kind.id_field: self.id}


def entity_in_path(kind: Kind) -> Any:
    """Build the dependency that turns the path's id or name into an Entity."""
    reference = Path(
        alias=kind.id_field,
        max_length=300,
        description=f"UUID of the {kind.word}, or `name:` and its exact name.",
    )

    async def find(
        upstream: UpstreamDep, given: Annotated[str, reference, AfterValidator(check_reference)]
    ) -> Entity:
        return Entity(kind, await resolve(upstream, kind.entity_type, given))

    return find
