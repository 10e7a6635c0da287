"""``python -m node.commands``: the same as the program `nodepulse-node`."""

from node.commands.main import main

raise SystemExit(main())
