"""
Measures what this project takes to send mail, side by side with others, in one
run on one machine: ``python -m benchmarks``.
"""
