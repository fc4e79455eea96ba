"""HTML pages of runs: one self-contained file each, for people.

    run_facts.py   the tables of an output > counts
    comparison.py  predictions and known labels > a confusion table and shares with intervals
    figures.py     counts > where the bars of a figure stand
    wording.py     what outcomes, reasons and statuses mean, in plain words
    page.py        all of it > HTML, by the templates
    run_page.py    an output and its package > the page's file

A page holds counts, names of archives and names of implants: no picture, no member's name, no
identifier. It loads nothing from anywhere, runs no script, and escapes whatever comes from data.
"""
