"""Which blocks CometBFT may delete, when the operator does not keep them all.

Blocks are CometBFT's; the application's part is `retain_height` in its answer to Commit. Nothing
of the application's own is deleted: records of generations stay.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.rules.codec import GenerationRecord

if TYPE_CHECKING:
    from pol_abci.store.store import Store

KEEP_ALL = 0
"""As a retain height and as a number of blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What has to stay: the newest `keep_blocks`, and blocks in which evidence may be found.

    `evidence_age_ms` is the chain's `max_age_duration`. `keep_blocks` is `KEEP_ALL`, or at least
    the chain's `max_age_num_blocks`; evidence is too old when it exceeds both.
    """

    keep_blocks: int = KEEP_ALL
    evidence_age_ms: int = 0

    def compute_retain_height(self, store: Store, newest: GenerationRecord) -> int:
        """Return the lowest height to keep, `KEEP_ALL` while nothing may go.

        `newest` is the generation that the store's newest block made. Blocks since the last
        generation that is older than evidence may be stay.
        """
        wanted = store.height - self.keep_blocks + 1
        if self.keep_blocks == KEEP_ALL or wanted <= 1:
            return KEEP_ALL
        latest_ms = newest.time_ms - self.evidence_age_ms

        def get_time_ms(generation: int) -> int:
            data = store.get_record(generation)
            # A node that joined by a snapshot lacks the first ones.
            return 0 if data is None else GenerationRecord.decode(data).time_ms

        generations = range(1, newest.generation + 1)
        old = bisect_right(generations, latest_ms, key=get_time_ms)
        data = store.get_record(old)
        return KEEP_ALL if data is None else min(wanted, GenerationRecord.decode(data).height)
