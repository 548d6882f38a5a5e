"""`python -m fnnets`: compares gradients from the command line."""

from fnnets.command_line._main import main as main
