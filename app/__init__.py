"""The ThingsBoard gateway: one key-protected, typed HTTP API in front of ThingsBoard."""

__version__ = "0.1.0"
