"""`python -m zhiyin_cli`: the `zhiyin` command where the script is not on the path."""

from zhiyin_cli.main import app

app()
