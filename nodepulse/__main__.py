"""``python -m nodepulse``: the command line."""

from nodepulse.cli import main

main()
