"""How often the worker does what it does beside its messages."""

PROGRESS_SECONDS = 5.0
BACKLOG_SECONDS = 0.005  # between two looks, while there is a backlog, at whether no message waits
QUIET_SECONDS = 0.5  # without messages, until the backlog is taken in big bites
RECALL_SECONDS = 60.0  # between two looks at what search misses, each some ten milliseconds of work
RECONCILE_SECONDS = 0.5  # between two looks at whether the worker has caught up
WATCH_SECONDS = 10.0  # between two looks, in quiet, at whether somebody else has published
