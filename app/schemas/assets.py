"""Assets."""

from app.schemas.common import Pagination, Success, ThingsBoardObject


class Asset(ThingsBoardObject):
    """A ThingsBoard asset, unchanged."""


class AssetAnswer(Success):
    """One asset."""

    data: Asset


class AssetList(Success):
    """A page of assets."""

    data: list[Asset]
    pagination: Pagination
