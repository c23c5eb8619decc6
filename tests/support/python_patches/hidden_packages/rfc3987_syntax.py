"""Hides a package from the servers under test.

bravado installs it, and jsonschema, which drf-yasg imports, uses it if it is installed. That costs 0.8 s
per start, which production does not pay.
"""

raise ImportError(__doc__)
