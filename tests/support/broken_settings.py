"""Totoro's settings with urls that fail, for a server of its own."""

from totoro import settings


class Dev(settings.Dev):
    ROOT_URLCONF = "tests.support.broken_urls"


class Production(settings.Production):
    ROOT_URLCONF = "tests.support.broken_urls"
