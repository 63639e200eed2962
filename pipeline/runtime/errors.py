"""The errors of the runtime, one catalogue. An adapter raises the first three; the worker acts on them as listed::

error           what it means                                     what the worker does
Retriable       the answer did not come; the call may be repeated  the same call again
Abortable       the transaction cannot be committed                abort, drop the overlay, seek back
Fatal           this process can no longer commit                  WorkerStopped
WorkerStopped   the process must end; the next start sorts it out  ends the loop

`NotAcknowledged` is for the doors, which write without transactions.
"""


class RuntimeFault(Exception):
    """What every error of the runtime derives from."""


class Retriable(RuntimeFault):
    """The call was not answered, or not yet; repeating the same call may succeed."""


class Abortable(RuntimeFault):
    """The transaction must be aborted; the records it consumed can be processed again."""


class Fatal(RuntimeFault):
    """The client was fenced, or is broken for good."""


class WorkerStopped(RuntimeFault):
    """The worker cannot go on; its process must exit. The message says what happened, where, and what to do."""


class NotAcknowledged(RuntimeFault):
    """The broker did not acknowledge what was sent: whether it is kept is not known. Sending it again is safe where
    duplicates are told."""
