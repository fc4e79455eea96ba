"""The reviewer's workbench: the cases of an audit, their radiographs, and the pages around them.

endpoints.py     requests and pages; guard.py lets nobody else in
└── workbench.py     what a reader may do: queues, the next case, a decision
    ├── cases.py         the audit's files, and the radiographs of each record
    └── originals.py     a radiograph in its own depth, out of its archive
"""
