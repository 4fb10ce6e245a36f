"""The programs here import each other as those of a user do, by their plain names."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
