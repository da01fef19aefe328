"""
Those who send: a module each, run as a process of its own.
"""
