"""The form of a generated key: `tbg_<id>_<secret><checksum>`.

The checksum tells a typing error from a wrong key before anything is hashed. It is no secret: whoever
can read this can compute it.
"""

import re
import secrets
import string
import zlib

PREFIX = "tbg_"
ALPHABET = string.digits + string.ascii_letters
ID_LENGTH = 8
#: 62^22 is just below 2^131.
SECRET_LENGTH = 22
#: The digits of base 3,844: two characters at a time, for every request computes a checksum.
PAIRS = [(first + second).encode() for first in ALPHABET for second in ALPHABET]
#: A CRC-32 in base 62. It finds every single wrong character and every pair of swapped neighbours.
CHECKSUM_LENGTH = 6
FORM = re.compile(rb"tbg_[A-Za-z0-9_-]{1,32}_[A-Za-z0-9]{28,31}")
#: Keys of free form must not be taken for generated ones, and many begin with `tbg_`, too: what follows there
#: is `token_urlsafe`, `token_hex` or Base64, none of which ever has a length of 4n + 1. Ours always has.
LENGTH_MODULUS, LENGTH_REMAINDER = 4, 1


def make_id() -> str:
    """Return a new id: short enough for a log line, without `_`."""
    return _random_text(ID_LENGTH)


def make_key(key_id: str) -> str:
    """Return a new key of the holder with this id; it has at least 130 random bits."""
    filling = -(len(key_id) + len("_") + SECRET_LENGTH + CHECKSUM_LENGTH - LENGTH_REMAINDER) % LENGTH_MODULUS
    body = f"{PREFIX}{key_id}_{_random_text(SECRET_LENGTH + filling)}"
    return body + checksum_of(body.encode()).decode()


def checksum_fits(presented: bytes) -> bool | None:
    """Tell whether a generated key was typed right; None for a key of any other form."""
    if len(presented) % LENGTH_MODULUS != LENGTH_REMAINDER or not FORM.fullmatch(presented):
        return None
    return checksum_of(presented[:-CHECKSUM_LENGTH]) == presented[-CHECKSUM_LENGTH:]


def checksum_of(body: bytes) -> bytes:
    """Return the six characters that end a key with this beginning."""
    high, low = divmod(zlib.crc32(body), len(PAIRS))
    high, middle = divmod(high, len(PAIRS))
    return PAIRS[high] + PAIRS[middle] + PAIRS[low]


def _random_text(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
