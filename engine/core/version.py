"""The version, for every part that tells it. Not from package metadata: the sources run without an install.

A test holds pyproject.toml to it.
"""

VERSION = "0.1.0"
