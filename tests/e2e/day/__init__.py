"""A day from its beats to its points, whole: machines, what they are expected to be paid, and the story."""
