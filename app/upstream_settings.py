"""What has to be known about one ThingsBoard account: the same for `TB_HOST` and for `UPSTREAMS_FILE`."""

import re
import ssl
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

#: What people leave in place when they copy an example.
PLACEHOLDERS = {"changeme", "change-me", "change_me", "your-api-key", "your_api_key", "secret", "password"}
#: The upstream of `TB_HOST`, and of keys that name none.
DEFAULT_UPSTREAM = "default"
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


def no_placeholder(value: SecretStr | None) -> SecretStr | None:
    """Check that a secret has been filled in."""
    if value is not None and value.get_secret_value().strip().lower() in PLACEHOLDERS:
        raise ValueError("is still a placeholder")
    return value


class UpstreamFields(BaseModel):
    """The settings of one ThingsBoard account. The description is the documentation."""

    tb_host: str | None = Field(
        default=None,
        description="Address of ThingsBoard: scheme, host and port, such as `https://tb.example.com`. "
        "Needed, unless `UPSTREAMS_FILE` names all there is.",
    )
    tb_username: str | None = Field(
        default=None, description="ThingsBoard login: a tenant administrator or a customer user."
    )
    tb_password: SecretStr | None = Field(default=None, description="Password of `TB_USERNAME`.")
    tb_api_key: SecretStr | None = Field(
        default=None, description="ThingsBoard API key (4.3 and later), in place of user name and password."
    )
    tb_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the certificate authority that signed ThingsBoard's certificate.",
    )
    tb_verify_tls: bool = Field(
        default=True, description="`false` accepts any certificate of ThingsBoard: only for a closed network."
    )
    tb_timeout_seconds: float = Field(
        default=35.0,
        gt=0,
        le=300,
        description="Longest wait for one answer of ThingsBoard, which itself gives up after 30 s.",
    )
    tb_max_connections: int = Field(
        default=64, ge=1, le=1000, description="Calls to ThingsBoard in flight at once, per worker."
    )
    tb_max_rpcs: int = Field(
        default=256,
        ge=1,
        le=10_000,
        description="Commands that wait for their devices at once, per worker: on connections of their own, "
        "beside `TB_MAX_CONNECTIONS`. More are refused.",
    )
    tb_queue_seconds: float = Field(
        default=10.0,
        ge=0,
        le=300,
        description="Longest wait of a call for its turn at ThingsBoard; `0` refuses at once.",
    )

    @field_validator("tb_host")
    @classmethod
    def _is_an_origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value if "://" in value else f"//{value}", scheme="http")
        if "://" not in value and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
            # A password must not travel in the clear because eight letters were left out.
            raise ValueError("must begin with https:// (or http:// in a closed network)")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must look like https://thingsboard.example.com")
        if parts.username or parts.password:
            raise ValueError("must not hold credentials: use TB_USERNAME and TB_PASSWORD")
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError("must end after the host and port")
        try:
            # The port is read on access; a host name has labels of 1 to 63 characters.
            _ = parts.port, parts.hostname.encode("idna")
        except ValueError:
            raise ValueError("must have a valid host name and port") from None
        return f"{parts.scheme}://{parts.netloc}"

    @field_validator("tb_password", "tb_api_key")
    @classmethod
    def _is_no_placeholder(cls, value: SecretStr | None) -> SecretStr | None:
        return no_placeholder(value)

    @field_validator("tb_username", "tb_password", "tb_api_key")
    @classmethod
    def _is_not_empty(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        if value is not None and not value:
            raise ValueError("must not be empty")
        return value

    @field_validator("tb_api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        key = value.get_secret_value() if value is not None else ""
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("must hold neither blanks nor special characters")
        return value

    @field_validator("tb_ca_file")
    @classmethod
    def _holds_certificates(cls, value: Path | None) -> Path | None:
        # Read again when a connection needs it, but a wrong path has to stop the start.
        if value is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
            except OSError as error:
                # OpenSSL's own error has no text of its own for a file without a certificate.
                reason = error.strerror if not isinstance(error, ssl.SSLError) else None
                raise ValueError(f"cannot be used ({reason or 'not a PEM file of certificates'})") from None
        return value

    @model_validator(mode="after")
    def _has_one_credential(self) -> Self:
        if self.tb_host is None:
            return self
        if self.tb_api_key is None and (self.tb_username is None or self.tb_password is None):
            raise ValueError("TB_USERNAME and TB_PASSWORD are needed (or TB_API_KEY)")
        if self.tb_api_key is not None and (self.tb_username or self.tb_password):
            raise ValueError("TB_API_KEY and TB_USERNAME/TB_PASSWORD exclude each other: set one of the two")
        return self


class UpstreamSettings(UpstreamFields):
    """One upstream of the gateway: a `[[upstreams]]` table, or the account of `TB_HOST`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
    tb_host: str
    description: str = ""
