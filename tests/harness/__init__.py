"""What the whole-program tests stand on: a real InfluxDB, a real ODS, pods on plain sockets, and an oracle.

Nothing here imports `ods`: the program is tested from outside, by the contract alone.
"""
