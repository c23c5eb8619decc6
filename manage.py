#!/usr/bin/env python
"""Django's command line, in the configuration that DJANGO_CONFIGURATION names."""

import sys

import totoro  # noqa: F401 (names the settings and the default configuration)


def main() -> None:
    from configurations.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
