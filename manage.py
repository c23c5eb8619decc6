#!/usr/bin/env python
"""Django's command line, in the configuration that DJANGO_CONFIGURATION names."""

import os
import sys

import totoro  # noqa: F401 (names the settings and the default configuration)


def open_closed_standard_streams() -> None:
    """Open /dev/null in place of those that the process was started without (`>&-`).

    The next files and sockets that are opened would get their numbers, and all that is logged.
    """
    for number, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open until the end)
            os.set_inheritable(number, True)  # for workers that are not forked


def main() -> None:
    open_closed_standard_streams()
    from configurations.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
