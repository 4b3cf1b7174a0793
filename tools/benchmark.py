"""Speed and memory against the usual implementations: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("benchmark")
