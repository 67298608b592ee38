"""Devices."""

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import Pagination, Success, ThingsBoardObject


class Device(ThingsBoardObject):
    """A ThingsBoard device, unchanged. Lists hold ThingsBoard's device infos, which add `active`."""

    active: bool | None = None


class DeviceAnswer(Success):
    """One device."""

    data: Device


class DeviceList(Success):
    """A page of devices."""

    data: list[Device]
    pagination: Pagination


class Credentials(BaseModel):
    """How a device logs in to ThingsBoard. A secret."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    credentials_type: str = Field(alias="credentialsType")
    credentials_id: str | None = Field(default=None, alias="credentialsId")
    credentials_value: str | None = Field(default=None, alias="credentialsValue")


class CredentialsAnswer(Success):
    """The credentials of one device."""

    data: Credentials
