"""The routes: each parses, makes one call, and shapes the answer."""
