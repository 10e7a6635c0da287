"""The front door: command line, configuration, process supervision."""
