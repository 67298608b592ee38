"""Alembic's migrations. ``env.py`` is run by ``database.Database.upgrade``."""
