"""The WSGI application that granian serves."""

from configurations.wsgi import application

__all__ = ["application"]
