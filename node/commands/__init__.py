"""`nodepulse-node`, and `nodepulse node`: what a person types on the machine of a node.

main.py puts the words together; a command that has something heavy to import does so when it runs.
"""
