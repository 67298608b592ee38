"""What callers prefer, as the `Accept` headers say it (RFC 9110, 12.5)."""


def weights_of(header: str) -> dict[str, float]:
    """Return the weight of each choice in an `Accept` or `Accept-Encoding` header, names in lower case."""
    weights: dict[str, float] = {}
    for part in header.split(","):
        name, *parameters = part.split(";")
        weights[name.strip().lower()] = _weight(parameters)
    return weights


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value.strip())
            except ValueError:
                return 0.0
    return 1.0
