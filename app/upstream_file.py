"""Reads `UPSTREAMS_FILE`, whole or not at all; faults name the upstream and the field, never a value."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.errors import ConfigurationError
from app.settings import Settings, environment
from app.toml_tables import FileFault, faults_of, read, tables_of
from app.upstream_settings import DEFAULT_UPSTREAM, NAME, UpstreamFields, UpstreamSettings

#: These may be somewhere else than in the file: in a file of their own, or in a variable.
SECRETS = ("tb_password", "tb_api_key")


def load(settings: Settings) -> dict[str, UpstreamSettings]:
    """Return all upstreams by name, at least one: that of `TB_HOST` first, then those of the file.

    Raises:
        ConfigurationError: a line for each fault.
    """
    found: dict[str, UpstreamSettings] = {}
    if settings.tb_host is not None:
        given = {name: getattr(settings, name) for name in UpstreamFields.model_fields}
        found[DEFAULT_UPSTREAM] = UpstreamSettings(name=DEFAULT_UPSTREAM, **given)
    if settings.upstreams_file is not None:
        try:
            _add(found, settings.upstreams_file)
        except FileFault as fault:
            told = (f"UPSTREAMS_FILE: {each}" for each in fault.faults)
            raise ConfigurationError("\n".join(told)) from None
    return found


def names_in(path: Path) -> set[str]:
    """Return the names of a file's upstreams, without a look at anything else about them.

    Raises:
        FileFault: the file cannot be read.
    """
    return {str(table.get("name")) for table in tables_of(read(path), "upstreams") if isinstance(table, dict)}


def _add(found: dict[str, UpstreamSettings], path: Path) -> None:
    faults: list[str] = []
    variables = environment()
    for number, table in enumerate(tables_of(read(path), "upstreams")):
        place = f"upstreams.{number}"
        try:
            upstream = UpstreamSettings.model_validate(_with_secrets(table, variables))
        except ValidationError as error:
            faults += [f"{place}{_named(table)}{fault}" for fault in faults_of(error)]
        except FileFault as fault:
            faults += [f"{place}{_named(table)}.{each}" for each in fault.faults]
        else:
            if upstream.name in found:
                whose = ": it is that of TB_HOST" if upstream.name == DEFAULT_UPSTREAM else ""
                faults.append(f"{place} ({upstream.name}).name: is taken already{whose}")
            found.setdefault(upstream.name, upstream)
    if faults:
        raise FileFault(*faults)


def _named(table: Any) -> str:
    name = table.get("name") if isinstance(table, dict) else None
    # Whatever else stands there may be anything, a secret in the wrong line among it.
    return f" ({name})" if isinstance(name, str) and NAME.fullmatch(name) else ""


def _with_secrets(table: Any, variables: Mapping[str, str]) -> Any:
    """Return the table with the secrets in it that it only points at."""
    if not isinstance(table, dict):
        return table
    filled, faults = dict(table), []
    for field in SECRETS:
        given = [name for name in (field, f"{field}_file", f"{field}_env") if name in table]
        if len(given) > 1:
            faults.append(f"{given[1]}: is one too many beside {given[0]}")
        for name in given:
            if name != field:
                try:
                    filled[field] = _secret_at(name, filled.pop(name), variables)
                except FileFault as fault:
                    faults += [f"{name}: {each}" for each in fault.faults]
    if faults:
        raise FileFault(*faults)
    return filled


def _secret_at(name: str, place: Any, variables: Mapping[str, str]) -> str:
    if not isinstance(place, str) or not place:
        raise FileFault("must be text")
    if name.endswith("_env"):
        if place.upper() not in variables:
            raise FileFault("names a variable that is not set")
        return variables[place.upper()]
    try:
        return read(Path(place)).decode().strip()
    except UnicodeDecodeError:
        raise FileFault("names a file that is not UTF-8 text") from None
