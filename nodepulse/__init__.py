"""The front door: command line, configuration, process supervision."""

__version__ = "0.1.0"
