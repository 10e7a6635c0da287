"""What nodepulse/client/generate.py has written. Not to be edited."""
