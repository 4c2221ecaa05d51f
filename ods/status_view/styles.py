"""The colours of a terminal, by what they mean. The sixteen that every terminal has, so that its theme holds."""

#: The sentence, by its level.
LEVELS = {
    "live": "bold black on green",
    "buffering": "bold black on yellow",
    "draining": "bold black on cyan",
    "losing": "bold white on red",
}
#: An ODS that does not answer.
STALE = "bold white on magenta"
#: Counters that call for a look, where they are not zero.
OF_COUNTER = {
    "pending": "yellow",
    "quarantined": "yellow",
    "dropped": "bold red",
    "invalid": "yellow",
    "torn": "yellow",
}
#: The state of a pod.
OF_STATE = {"connected": "green", "left": "yellow", "away": "yellow", "never_seen": "dim"}
#: The level of a pod's log message.
OF_LOG = {"warn": "yellow", "error": "red", "fatal": "bold red", "debug": "dim"}
