"""The application object for servers that import one: the only module that acts on import."""

from app import logs, settings
from app.factory import create_app

_settings = settings.load()
logs.configure("DEBUG" if _settings.debug else "INFO", _settings.log_format)
app = create_app(_settings)
