"""Lets every fdatasync of this process take longer, as a slow disk does; not part of the product."""

import os
import time

_fdatasync = os.fdatasync


def _slowly(handle):
    time.sleep(float(os.environ["SYNC_SECONDS"]))
    _fdatasync(handle)


os.fdatasync = _slowly
