"""``python -m node.manager --config FILE``."""

from node.update.launch import main

raise SystemExit(main())
