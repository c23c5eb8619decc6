"""A Python that starts processes as on macOS, and on Linux from Python 3.14 on. Through PYTHONPATH."""

import multiprocessing

multiprocessing.set_start_method("spawn")
