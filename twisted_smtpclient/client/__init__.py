"""
Moves octets and keeps time, with Twisted; knows no JSON.
"""
