"""Unversioned routes for operators: no key, no limit, by exact path."""
