"""tests/goldens/trl_yaml: configs that TRL's own command line takes.

    VENV/bin/python scripts/goldens/trl_yaml.py

Parses each as `trl COMMAND --config FILE` would and fails where TRL does not know a key; nothing is written.
"""
import glob
import importlib
import os

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.normpath(os.path.join(HERE, "..", "..", "tests", "goldens", "trl_yaml"))

for path in sorted(glob.glob(os.path.join(FOLDER, "*.yaml"))):
    command = os.path.basename(path).removesuffix(".yaml")
    parser = importlib.import_module(f"trl.scripts.{command}").make_parser()
    parsed = parser.parse_args_and_config(args=["--config", path], fail_with_unknown_args=True)
    print(command, "is a config of TRL:", ", ".join(type(part).__name__ for part in parsed))
