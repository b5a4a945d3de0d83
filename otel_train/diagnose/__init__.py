"""What is wrong in a run: what was read, judged; worst first."""
