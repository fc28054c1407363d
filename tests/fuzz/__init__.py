"""Random programs in every mode: nothing that a guest executes ends in a Python traceback or a host signal.

worlds.py has the modes, programs.py the bytes, target.py the machine that runs them, __main__.py the process in which
they run, test_fuzz.py the watchdog over it.
"""
