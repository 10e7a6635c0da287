"""Who is told of what, and when: pure functions over the records of engine/core/newsroom.py.

kinds.py and routing.py say who hears of a kind at all; gates.py what may hold it back; beliefs.py,
flapping.py and areas.py how state follows events; digests.py what is told together; step.py is all of it.
"""
