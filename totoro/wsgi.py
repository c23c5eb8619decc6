"""The WSGI application that granian serves."""

from configurations.wsgi import application as django_application
from django.conf import settings

from services.quotas import quotas
from totoro.proxy import TrustedProxies

application = TrustedProxies(django_application, settings.TRUSTED_PROXIES)
quotas()  # before requests come: the first few, at the same time, would each make their own

__all__ = ["application"]
