"""The manager's own version, as it is told to the server with each session."""

VERSION = "0.1.0"
