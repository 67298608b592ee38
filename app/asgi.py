"""The application object for servers that import one: the only module that acts on import."""

import gc

from app import logs, settings
from app.factory import create_app

_settings = settings.load()
logs.configure("DEBUG" if _settings.debug else "INFO", _settings.log_format)
app = create_app(_settings)
# What lives as long as the process is not looked at again by each collection: 5 % of a list call.
gc.collect()
gc.freeze()
