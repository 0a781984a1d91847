"""How much of the waiting work one turn of the aligner takes."""

IDLE_EVALUATIONS, BULK_EVALUATIONS = 32, 4096  # entities that a call without messages evaluates again
IDLE_PAIRS, BULK_PAIRS = 1024, 32_768  # waiting pairs that it scores
BULK_ROWS = 8192  # rows that it makes anew
IDLE_HUB, HUB_SHARE = 8192, 1024  # neighbours of a hub looked through without and with messages
BACKLOG_EVALUATIONS = 16  # with messages, one waiting entity is evaluated for so many of them
BACKLOG_SHARE = 16  # with messages, one waiting pair is scored for so many that the messages changed
