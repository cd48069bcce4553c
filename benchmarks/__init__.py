"""
What the models cost against the limit and against a peer. `python -m benchmarks --help`; docs/measured/benchmarks.md says what
is compared.
"""
