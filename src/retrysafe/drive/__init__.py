"""The two drivers of the flow, one blocking and one for asyncio.

Rules that both keep:

* A flow is driven to its end, always; `close()` is never called on one.
* A claim whose answer reached nobody, because the store failed or the caller was cancelled, is taken
  back, for as long as its lease: nothing ran under it.
* From `Execute` on, nobody but a shutdown can stop the handler, and nothing stops the settlement.
* A settlement is tried again while the store is away: for `SETTLE_S` while the client waits, then
  until the lease ends (contract R49).
* The lease is renewed at a third of its length while the handler runs, up to `execution_max` (R40).
"""

SETTLE_S = 5.0
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0
RENEWALS_PER_LEASE = 3
