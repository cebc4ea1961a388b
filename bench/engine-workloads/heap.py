"""The interpreter with HEAP_MIB of initialized memory that no request touches.

The content is half as long when it is compressed, as heaps are, and no page of it is like another one.
"""

import os
import random

from guest import serve

RANDOM = random.Random(1)
MIB = 1 << 20
HEAP = bytearray(int(os.environ["HEAP_MIB"]) * MIB)
for start in range(0, len(HEAP), MIB):
    HEAP[start : start + MIB] = RANDOM.randbytes(MIB // 2).hex().encode()

serve({"trivial": lambda: "pong"})
