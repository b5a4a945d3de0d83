"""Judge a run that was read: each finding with its cause and its remedy, the worst first."""
