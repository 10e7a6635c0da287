"""The front door: command line, configuration, process supervision."""

from engine.core.version import VERSION as __version__

__all__ = ["__version__"]
