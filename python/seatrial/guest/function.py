"""The small function that is run in Python inside sandboxes: counts primes, and says how long."""

import json
import sys
import time


def primes_below(limit: int) -> int:
    """Count primes by Eratosthenes' sieve, a byte a number; the guest's own does the same."""
    flags = bytearray([1]) * limit
    flags[:2] = bytes(min(2, limit))
    number = 2
    while number * number < limit:
        if flags[number]:
            flags[number * number :: number] = bytes(len(range(number * number, limit, number)))
        number += 1
    return sum(flags)


if __name__ == "__main__":
    started_ns = time.monotonic_ns()
    result = primes_below(int(sys.argv[1]))
    words = {"result": result, "function_ns": time.monotonic_ns() - started_ns}
    sys.stdout.write(json.dumps(words) + "\n")
