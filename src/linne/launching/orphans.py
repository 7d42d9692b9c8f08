"""A process that leaves when the one that started it is gone: else it would train on beside its successor."""

from __future__ import annotations

import os
import threading
import time

LOOK_SECONDS = 0.5


def leave_with_parent() -> None:
    """Watch the parent from now on, and leave at once when it is not there any more."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)  # the main thread may wait for a process that will not come

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
