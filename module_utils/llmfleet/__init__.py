"""The pure core of llmfleet: decisions as functions of plain data.

Nothing here imports AnsibleModule or does I/O of its own; code that needs the outside world takes it as an
argument (a command runner, an opener), so that every decision can be tested without it.
Python 3.9 is the oldest supported on a target.
"""
