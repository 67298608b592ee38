"""Unversioned routes for operators and readers: no key, no limit, by exact path."""

from app.api.ops import docs, health, metrics

PUBLIC_PATHS = health.PATHS | docs.PATHS | metrics.PATHS
#: What tells operators and balancers how the gateway is.
PROBED_PATHS = (health.PATHS - {"/"}) | metrics.PATHS
