"""Names of telemetry keys and attributes: which of them ThingsBoard can have at all."""

LONGEST_KEY = 255

TOO_LONG = f"the key is longer than {LONGEST_KEY} characters"


def is_longer(text: str, limit: int) -> bool:
    """Tell whether text has more UTF-16 units, which is what ThingsBoard counts, than the limit."""
    return len(text) > limit or len(text.encode("utf-16-le", "surrogatepass")) > 2 * limit


def find_fault(key: str) -> str | None:
    """Return why there can be no such key, or None. ThingsBoard answers 500 to those it cannot look up."""
    if not key:
        return "the key is empty"
    if not key.strip():
        return "the key is blank"
    if "\0" in key:
        return "the key holds a NUL character"
    return TOO_LONG if is_longer(key, LONGEST_KEY) else None


def check(key: str) -> str:
    """Return a key that there can be, or raise ValueError."""
    fault = find_fault(key)
    if fault is not None:
        raise ValueError(fault)
    return key
