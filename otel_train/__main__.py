"""`python -m otel_train`: the command `otel-train`."""

from otel_train.cli import main

if __name__ == "__main__":
    main()
