"""Judge a run that was read: each finding with its cause and its remedy, the worst first.

`examine` makes the findings: metrics by `judgement`, the mix by `drift`, the ranks by `ranks` and `stragglers`.
`causes` and `capacity` explain, `terminal` prints.
"""
