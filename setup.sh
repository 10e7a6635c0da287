# Sourced by ./run and ./test: one virtual environment beside the sources, installed from the lock file
# (exact versions, hashes). A second start compares the lock's checksum and installs nothing.
venv="$top/.venv"

setup() { # lock-file stamp-name
  lock="$top/$1"
  stamp="$venv/.installed-$2"
  sum=$(cksum < "$lock")
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]; then
    return 0
  fi
  python=$(find_python)
  uv="$top/.tools/bin/uv"
  if [ ! -x "$uv" ]; then
    echo "nodepulse: installing the installer (uv) into .tools" >&2
    "$python" -m pip --version > /dev/null 2>&1 || "$python" -m ensurepip --user > /dev/null 2>&1 || {
      echo "nodepulse: this Python has no pip; install it first (Debian: apt-get install python3-pip)" >&2
      exit 1
    }
    "$python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
      --root-user-action ignore --target "$top/.tools" uv >&2
  fi
  [ -x "$venv/bin/python" ] || "$uv" venv --quiet --no-python-downloads --python "$python" "$venv" >&2
  echo "nodepulse: installing locked dependencies ($1)" >&2
  "$uv" pip install --quiet --no-python-downloads --python "$venv/bin/python" --require-hashes -r "$lock" >&2
  "$uv" pip install --quiet --no-python-downloads --python "$venv/bin/python" --no-deps --editable "$top" >&2
  printf '%s' "$sum" > "$stamp"
  # The development lock holds everything the product needs.
  if [ "$2" = test ]; then cksum < "$top/requirements.lock" > "$venv/.installed-run"; fi
}

find_python() {
  for candidate in python3.11 python3 python3.12 python3.13; do
    if command -v "$candidate" > /dev/null 2>&1 \
      && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  echo "nodepulse: Python 3.11 or later is needed" >&2
  exit 1
}
