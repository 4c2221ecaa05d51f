"""`ods replay`: what the recordings hold goes where it was meant to go, or once more to where the pods sent it."""
