"""The front door: command line, configuration, process supervision."""

from engine.core.version import VERSION

__version__ = VERSION
