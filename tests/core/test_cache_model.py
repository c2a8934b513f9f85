"""The compiled cache does what a model of fifty lines of Python does, over random operations and a manual clock."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record

INACTIVITIES, INTERVAL, LIFETIME = [0, 400, 1_000, 2_000], 300, 2_500
KEYS = [bytes([i]) * 16 for i in range(12)]
USERS = ["", "ann", "bob", "ünï"]
GROUPS = [None, "", "staff"]

keys = st.sampled_from(KEYS)
users = st.sampled_from(USERS)
groups = st.sampled_from(GROUPS)


class Model:
    """Entries in the order of their use, oldest first: [record, accessed, stored, cached_at]."""

    def __init__(self, capacity: int, lifetime: int) -> None:
        self.capacity, self.lifetime, self.now = capacity, lifetime, 0
        self.entries: OrderedDict[bytes, list] = OrderedDict()
        self.pending: dict[bytes, int] = {}

    def put(self, record: Record) -> bool:
        entry, accessed = self.entries.get(record.key), 0
        if entry and entry[0].version > record.version:
            return False
        if record.expires_at <= self.now:
            self.entries.pop(record.key, None)
            return False
        if not entry:
            if len(self.entries) >= self.capacity:
                self.entries.popitem(last=False)
            entry = [record, 0, 0, 0]
            accessed = self.pending.pop(record.key, 0)
        stored = max(entry[2], record.last_accessed)
        self.entries[record.key] = [record, max(entry[1], stored), stored, self.now]
        self.entries.move_to_end(record.key)
        if self.entries[record.key][1] <= stored:
            self.pending.pop(record.key, None)
        self.touch(record.key, accessed)
        return True

    def touch(self, key: bytes, us: int) -> None:
        entry = self.entries[key]
        entry[1] = max(entry[1], us)
        if us > entry[2]:
            self.pending[key] = entry[1]

    def get(self, key: bytes, touch: bool) -> Record | None:
        if key not in self.entries:
            return None
        record, accessed, _, cached_at = self.entries[key]
        if self.now >= record.expires_at or (self.lifetime and self.now >= cached_at + self.lifetime):
            del self.entries[key]
            return None
        if record.inactivity and self.now >= accessed + record.inactivity:
            return None
        if touch and self.now > accessed:
            self.touch(key, self.now)
        self.entries.move_to_end(key)
        return record


class CacheMachine(RuleBasedStateMachine):
    @initialize(capacity=st.integers(1, 8), lifetime=st.sampled_from([0, LIFETIME]))
    def start(self, capacity: int, lifetime: int) -> None:
        self.clock = Clock(manual=0)
        self.cache = Cache(
            capacity,
            self.clock,
            access_interval=INTERVAL,
            lifetime=lifetime,
            max_attribute_length=100,
        )
        self.model = Model(capacity, lifetime)

    @rule(us=st.integers(1, 1_200))
    def advance(self, us: int) -> None:
        self.clock.advance(us)
        self.model.now += us

    @rule(
        key=keys,
        version=st.integers(1, 4),
        user=users,
        group=groups,
        life=st.integers(-10, 4_000),
        inactivity=st.sampled_from(INACTIVITIES),
        age=st.integers(0, 1_100),
    )
    def put(self, key, version, user, group, life, inactivity, age) -> None:  # type: ignore[no-untyped-def]
        now = self.model.now
        record = Record(
            key,
            version,
            user,
            group,
            0,
            0,
            max(0, now - age),
            now + life,
            inactivity,
            [("k", version, None, b"1")],
        )
        assert self.cache.put(record) == self.model.put(record)

    @rule(key=keys, touch=st.booleans())
    def get(self, key: bytes, touch: bool) -> None:
        assert self.cache.get(key, touch) is self.model.get(key, touch)

    @rule(key=keys)
    def discard(self, key: bytes) -> None:
        assert self.cache.discard(key) == (self.model.entries.pop(key, None) is not None)

    @rule(key=keys, version=st.integers(1, 5))
    def discard_older(self, key: bytes, version: int) -> None:
        entry = self.model.entries.get(key)
        older = entry is not None and entry[0].version < version
        assert self.cache.discard_older(key, version) == older
        if older:
            del self.model.entries[key]

    @rule(user=users)
    def discard_user(self, user: str) -> None:
        gone = [key for key, entry in self.model.entries.items() if entry[0].user_id == user]
        assert self.cache.discard_user(user) == len(gone)
        for key in gone:
            del self.model.entries[key]

    @rule(group=st.sampled_from(["", "staff", "nobody"]))
    def discard_group(self, group: str) -> None:
        gone = [key for key, entry in self.model.entries.items() if entry[0].group_id == group]
        assert self.cache.discard_group(group) == len(gone)
        for key in gone:
            del self.model.entries[key]

    @rule()
    def clear(self) -> None:
        assert self.cache.clear() == len(self.model.entries)
        self.model.entries.clear()

    @rule(limit=st.integers(0, 20), confirmed=st.booleans())
    def flush(self, limit: int, confirmed: bool) -> None:
        taken = self.cache.take_accesses(limit)
        assert len(taken) == min(limit, len(self.model.pending))
        for key, us in taken:
            assert self.model.pending.pop(key) == us
        if not confirmed:
            self.cache.restore_accesses(taken)
            self.model.pending |= dict(taken)
            return
        self.cache.confirm_accesses(taken)
        for key, us in taken:
            if key in self.model.entries:
                self.model.entries[key][2] = max(self.model.entries[key][2], us)

    @rule(user=users)
    def accesses_of_user(self, user: str) -> None:
        known = {
            key: entry[1]
            for key, entry in self.model.entries.items()
            if entry[0].user_id == user and entry[1] > entry[2]
        }
        touched = dict(self.cache.accesses_of_user(user))
        assert known.items() <= touched.items()
        assert touched.items() <= (self.model.pending | known).items()

    @rule()
    def expire(self) -> None:
        now, lifetime = self.model.now, self.model.lifetime
        over = [
            key
            for key, (record, _, _, cached_at) in self.model.entries.items()
            if now >= record.expires_at or (lifetime and now >= cached_at + lifetime)
        ]
        assert self.cache.expire(limit=100) == len(over)
        for key in over:
            del self.model.entries[key]

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "cache"):
            return
        found = dict(zip(*self.cache.versions(), strict=True))
        assert found == {key: entry[0].version for key, entry in self.model.entries.items()}
        assert len(self.cache) == len(found) <= self.cache.capacity


CacheMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestCacheModel = CacheMachine.TestCase
