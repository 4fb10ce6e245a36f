#!/usr/bin/env bash
# Makes or refreshes a virtual environment with this project, editable, and all that its tests need.
# usage: scripts/venv.sh FOLDER PYTHON [UV]     (an empty UV, or one that does not run, means plain venv and pip)
set -eu
cd "$(dirname "$0")/.."
folder=$1 python=$2 uv=${3-}

if [ -n "$uv" ] && "$uv" --version >/dev/null 2>&1; then
  path=$([ -z "$python" ] || "$python" -c 'import sys; print(sys.executable)')
  "$folder/bin/python" -c '' 2>/dev/null || "$uv" venv --quiet --clear --python "${path:-3.13}" "$folder" # uv fetches a Python where there is none
  "$uv" pip install --quiet --python "$folder/bin/python" -e '.[dev]'
  exit
fi

if [ -z "$python" ]; then
  echo "No Python 3.11, 3.12 or 3.13 that runs was found: install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
  exit 1
fi

if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
  # Debian and its children ship venv without the pip that goes into it.
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print(f"python3.{sys.version_info[1]}-venv")')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      apt-get install --yes --quiet "$package" || { apt-get update --quiet && apt-get install --yes --quiet "$package"; }
    else
      echo "$python cannot make virtual environments: install $package (apt-get install $package), or uv, and run this again" >&2
      exit 1
    fi
  fi
  "$python" -m venv --clear "$folder"
fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]'
