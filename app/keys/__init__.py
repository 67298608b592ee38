"""API keys: their form, their file, and who holds one. Nothing here knows HTTP."""
