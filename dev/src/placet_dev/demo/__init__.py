"""The upgrade story, told by real processes: ``placet demo``.

``story`` holds what must work, ``attacks`` what must be refused; both are functions over
a `World`, which the tests use as well.
"""
