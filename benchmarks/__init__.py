"""Proofs that are too slow for the tests: parity with the tools Matura replaces, speed beside them, kills.

`python -m benchmarks` runs all of them, `python -m benchmarks NAME ...` some; `--help` lists the names. Each writes
`benchmarks/results/<name>.json` with its figures and where they were measured.
"""
