"""A pod for trying things: what it measures, what it sends, and whether ODS answers as it should.

The data flows one way: run_profile (physics) -> records (what is sent) -> pod (the connection) -> summary.
Nothing here imports another part of ODS: a simulator that shared code with the server would share its mistakes.
"""
