"""Updating the manager itself: from the published release to the one that runs, and back if it does not beat.

release.py: what is published and who signed it; rules.py: whether it may be taken; source.py: fetching;
store.py: what is installed; apply.py: check and apply, for commands; updater.py: the task beside the manager;
trial.py: who watches a new one's first beats; launch.py: which one a start begins.
"""
