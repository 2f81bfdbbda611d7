"""The command `python -m configs.records`, which writes RECORDS.md anew."""

from pathlib import Path

from configs.records.page import render

if __name__ == "__main__":
    Path(__file__).with_name("RECORDS.md").write_text(render(), "utf-8")
