"""The fault suite, `make faults`: every fault that a field run meets, and what becomes of each record in it.

Pods send through ODS to a real InfluxDB, behind a proxy that fails as networks and servers do; ODS is killed exactly at
its fail-points and at any moment. What was sent and replied is held against what InfluxDB has in the end. Nothing here
imports `ods`: the program is judged from outside.
"""
