"""``python -m node.manager --config FILE``."""

from node.manager.main import main

raise SystemExit(main())
