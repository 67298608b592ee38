"""Smart Home: a product for people, on top of the gateway. See ``docs/smart-home.md``."""
