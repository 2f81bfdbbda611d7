"""Records as frozen dataclasses: metrics.json, audit.json and the journals.

Writer and reader share each dataclass. RECORDS.md lists them all; `python -m configs.records` writes it.

fields.py               dataclasses to JSON values and back, with every mistake collected
result.py               metrics.json of a run
audit.py                audit.json
site_journal.py         records of a hospital's journal
run_journal.py          records of a run's journal
coordinator_journal.py  records of the coordinator's own journal
page.py                 RECORDS.md, from the dataclasses
"""
