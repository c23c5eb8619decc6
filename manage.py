#!/usr/bin/env python
"""Django's command line, in the configuration that DJANGO_CONFIGURATION names."""

import sys

from django.core.exceptions import ImproperlyConfigured


def main() -> None:
    try:
        from configurations.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"totoro: {error}")


if __name__ == "__main__":
    main()
