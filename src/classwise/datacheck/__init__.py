"""`classwise check`: what is wrong with the data, before a number is trusted.

Copies, leaks, labels, images, shortcuts and shift: each has a module of its own that takes plain arrays and paths, and
gives back numbers; `api` reads the data, calls them, and turns what they find into findings.
"""
