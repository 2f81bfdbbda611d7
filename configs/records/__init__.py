"""Records as frozen dataclasses: metrics.json, audit.json and the journals.

Writer and reader share each dataclass. RECORDS.md lists them all; `python -m configs.records` writes it.

fields.py               dataclasses to JSON values and back, with every mistake collected
estimate.py             a figure with its interval
result.py               metrics.json of a run
effects.py              what a linear model's coefficients say in it
further.py              results of further releases in it
inference.py            the release `inference`: its keys, and the ratios that follow from it
subgroups.py            the release `subgroups`: its keys, and the figures by group that follow from it
audit.py                audit.json
site_journal.py         records of a hospital's journal
run_journal.py          records of a run's journal
coordinator_journal.py  records of the coordinator's own journal
page.py                 RECORDS.md, from the dataclasses
"""
