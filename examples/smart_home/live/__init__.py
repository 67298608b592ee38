"""Live updates: one WebSocket to the gateway, many to browsers."""
