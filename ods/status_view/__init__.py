"""What a terminal shows of a snapshot of ODS: pure, from the JSON of `/api/status` to text.

    reading -> words -> pods, boot -> plain (lines for a pipe), screen (a picture for a terminal)

A snapshot comes from any version of ODS and holds what pods sent. So nothing here relies on a key to be there, and no
text of a snapshot gets out of `reading` with a character in it that a terminal would obey.
"""
