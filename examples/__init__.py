"""Products on top of the gateway; they talk to it over HTTP only."""
