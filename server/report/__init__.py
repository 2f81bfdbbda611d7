"""report.html: its sections and its page.

sections.py           sections of a trained model;  counting_sections.py  sections of a study of statistics
page.py               the whole page, with page.html and page.css
"""
