"""Everything that knows the ThingsBoard wire. Nothing here knows FastAPI or our routes."""
