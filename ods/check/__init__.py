"""What an operator wants to know before a run: each thing looked at from outside, as ODS would meet it.

Nothing of gevent is in here, and nothing of ODS runs: the checks are ordinary threads, for any of them may hang.
"""
