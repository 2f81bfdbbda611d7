"""Write RECORDS.md anew: `python -m configs.records`."""

from pathlib import Path

from configs.records.page import render

if __name__ == "__main__":
    Path(__file__).with_name("RECORDS.md").write_text(render(), "utf-8")
