"""One lock around parallel code compiled by Numba, whichever library it belongs to.

Numba's fallback threading layer ends the process when two threads run parallel code.
"""

from __future__ import annotations

import threading

one_at_a_time = threading.Lock()
