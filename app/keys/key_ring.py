"""All keys as of one reading of the file, found by digest. Immutable: all requests share it."""

from dataclasses import dataclass
from enum import StrEnum
from hmac import compare_digest
from ipaddress import IPv4Address, IPv6Address
from itertools import repeat

from app.context import Caller, Restrictions
from app.keys.entries import ALL, SCOPES, KeyEntry, Secret
from app.settings import IPNetwork
from app.times import ms_of


class Refusal(StrEnum):
    """Why a key was refused. The log tells; on the wire the first seven are one and the same 401."""

    UNKNOWN = "unknown"
    MISTYPED = "mistyped"
    DISABLED = "disabled"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    ROTATED = "rotated"
    REVOKED = "revoked"
    ADDRESS = "address_not_allowed"
    ORIGIN = "origin_not_allowed"


@dataclass(frozen=True, slots=True)
class HeldKey:
    """One secret of one key, ready to be judged. Times are ms since the epoch."""

    digest: bytes
    #: `expires_at` is when this secret stops working, be it the key's end or the secret's.
    caller: Caller
    disabled: bool
    not_before: int | None
    #: The end is that of the secret, for the key was rotated.
    ends_by_rotation: bool
    allowed_ips: tuple[IPNetwork, ...] | None
    allowed_origins: frozenset[str] | None

    def refusal_at(self, now: int) -> Refusal | None:
        """Tell why the key cannot be used at this time, or None when it can."""
        if self.disabled:
            return Refusal.DISABLED
        if self.not_before is not None and now < self.not_before:
            return Refusal.NOT_YET_VALID
        if self.caller.expires_at is not None and now >= self.caller.expires_at:
            return Refusal.ROTATED if self.ends_by_rotation else Refusal.EXPIRED
        return None

    def allows_address(self, address: IPv4Address | IPv6Address | None) -> bool:
        """Tell whether the key may be used from there; None is an address nobody knows."""
        if self.allowed_ips is None:
            return True
        return address is not None and any(address in network for network in self.allowed_ips)

    def allows_origins(self, origins: list[str]) -> bool:
        """Tell whether the key may be used by these pages. Without any the caller is no browser's page."""
        return self.allowed_origins is None or self.allowed_origins.issuperset(origins)


class KeyRing:
    """Finds a key by its digest, at the same cost for any number of keys.

    Args:
        before: an earlier ring, whose keys are taken over where their entries are the very same.
    """

    def __init__(self, entries: tuple[KeyEntry, ...], before: "KeyRing | None" = None) -> None:
        self.entries = {entry.id: entry for entry in entries}
        self.held: dict[bytes, HeldKey] = {}
        for entry in entries:
            if before is not None and before.entries.get(entry.id) is entry:
                digests = [bytes.fromhex(digest) for digest in entry.digests]
                self.held.update((digest, before.held[digest]) for digest in digests)
            else:
                self.held.update((held.digest, held) for held in map(_hold, repeat(entry), entry.all_secrets))

    def find(self, digest: bytes) -> HeldKey | None:
        """Return the key with this SHA-256 digest. Its time can tell of digests only, never of keys."""
        held = self.held.get(digest)
        return held if held is not None and compare_digest(held.digest, digest) else None

    def digests(self) -> dict[bytes, str]:
        """Return the id behind each digest."""
        return {digest: held.caller.id for digest, held in self.held.items()}


def _hold(entry: KeyEntry, secret: Secret) -> HeldKey:
    digest = bytes.fromhex(secret.sha256)
    ends_by_rotation = secret.expires_at is not None and (
        entry.expires_at is None or secret.expires_at < entry.expires_at
    )
    end = secret.expires_at if ends_by_rotation else entry.expires_at
    restrictions = Restrictions(
        devices=frozenset(entry.devices) if entry.devices else None,
        device_types=frozenset(entry.device_types) if entry.device_types else None,
        customer=entry.customer,
        asset=entry.asset,
    )
    caller = Caller(
        id=entry.id,
        name=entry.name,
        scopes=SCOPES if ALL in entry.scopes else frozenset(entry.scopes),
        restrictions=None if restrictions == Restrictions() else restrictions,
        upstream=entry.upstream,
        rate_limit=entry.rate_limit,
        max_streams=entry.max_streams,
        expires_at=ms_of(end) if end else None,
        digest=digest,
    )
    return HeldKey(
        digest=digest,
        caller=caller,
        disabled=entry.disabled,
        not_before=ms_of(entry.not_before) if entry.not_before else None,
        ends_by_rotation=ends_by_rotation,
        allowed_ips=entry.allowed_ips,
        allowed_origins=frozenset(entry.allowed_origins) if entry.allowed_origins else None,
    )
