"""Random policies and profiles through the real pipeline; what left is judged by tests/oracle/leaving.py.

make leaving CASES=10000
"""
