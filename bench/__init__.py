"""`make bench`: how fast ODS is, each figure side by side with what it is compared to, in the same run.

It stands on the harness of the tests (`tests/harness`), and imports nothing of `ods`: it measures the program that its
users run. It judges nothing; `bench/README.md` says how to read what it prints.
"""
