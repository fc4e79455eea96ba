"""Registry records against predictions: what `jobs.audit` is made of.

    audit_options.py  the command line, checked
    registry/      the registry's side: its file, columns, records, names, sides and joints
    output.py, package_facts.py  the output of `classify`, and the model that made it
    images.py      the table `predictions` > arrays, batch by batch
    joining.py     which image speaks of which record, and which records share one
    evidence.py    the radiographs of one joint > one likelihood for each implant
    confusion.py   the registry's confusion and its rate of errors, estimated from the batch
    rate.py        the rate's interval over what is not known of the classifier
    verdicts.py    one verdict for each record
    counting.py    counts by hospital, maker, product and year, with intervals
    safety.py      the catalogue's MR-safety notes by study
    last_audit.py  this audit against the one before
    assemble.py, findings.py  all that was found
    pictures.py    radiographs and saliency of the first contradictions
    files.py       Parquet, CSV, JSON; audit_page.py, the page

Letters: M records, N images, K implants of the catalogue, C claims (what a record may say), P pairs
of an image and a record, E entries of a sparse table of records by implants.
"""
