"""What pgsession costs, beside what a Python service would use instead: `make bench`, ten minutes at most.

race.py       contenders that do the same work take turns; medians and ratios come from those turns
loops.py      rounds of one thing done over and over; load.py: rounds of many callers at once
stage.py      what contenders need: PostgreSQL, Redis, an event loop; processor.py: what they take of the processor
test_*.py     the races, a kind of work each
records.py    the recorded run, in recorded/; comparison.py: what has moved since
capacity.py   what single operations cost, for `pgsession plan`
budgets.py    what must be true of the results; report.py and picture.py show them in docs/, tables.py helps
"""
