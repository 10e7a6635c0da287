# Sourced by ./run and ./test (POSIX sh): one virtual environment beside the sources, installed from a lock
# file (exact versions, hashes). A further start compares a stamp and installs nothing. The sources are not
# installed: a .pth file points at this checkout, and a checkout that was moved is noticed by it.
venv="$top/.venv"
tools="$top/.tools"

unset PYTHONPATH PYTHONHOME # of somebody else's Python: ours is complete

setup() { # lock-file stamp-name
  want="$(cksum < "$top/$1") $top"
  is_set_up "$2" && return 0
  if ! mkdir -p "$tools" 2> /dev/null || [ ! -w "$tools" ] || { [ -e "$venv" ] && [ ! -w "$venv" ]; }; then
    fail "$top was set up by another user and cannot be written; use a clone of your own"
  fi
  # Two starts at one time must not install into each other.
  if command -v flock > /dev/null 2>&1; then
    exec 9> "$tools/setup.lock"
    flock 9
    is_set_up "$2" && return 0
  fi
  install_all "$1"
  printf '%s' "$want" > "$venv/.installed-$2"
  # The development lock holds everything the product needs.
  [ "$2" != test ] || printf '%s' "$(cksum < "$top/requirements.lock") $top" > "$venv/.installed-run"
  exec 9>&-
}

is_set_up() { # stamp-name
  [ -x "$venv/bin/python" ] && [ -f "$venv/.installed-$1" ] && [ "$(cat "$venv/.installed-$1")" = "$want" ]
}

install_all() { # lock-file
  python=$(find_python) || exit 1
  # Where there is no home to write to (nobody, some containers), caches lie in the checkout.
  if [ ! -w "${HOME:-/nonexistent}" ] && [ -z "${XDG_CACHE_HOME:-}" ]; then
    XDG_CACHE_HOME="$tools/cache"
    export XDG_CACHE_HOME
  fi
  uv=$(find_uv) || exit 1
  pth=$(echo "$venv"/lib/python3*/site-packages/nodepulse.pth)
  if [ ! -x "$venv/bin/python" ] || [ ! -f "$pth" ] || [ "$(cat "$pth")" != "$top" ]; then
    say "making a virtual environment with $python"
    rm -rf "$venv"
    "$uv" venv --quiet --no-python-downloads --python "$python" "$venv" >&2 || fail "no virtual environment"
  fi
  say "installing locked dependencies ($1)"
  # Compiled now: five processes start at once, and some environments forbid Python to keep what it compiles.
  "$uv" pip install --quiet --compile-bytecode --no-python-downloads --python "$venv/bin/python" \
    --require-hashes -r "$top/$1" >&2 \
    || fail "the dependencies cannot be installed; is the package index reachable?"
  (cd "$top" && "$venv/bin/python" -m compileall -q np1 engine storage web worker node nodepulse bench) >&2 || true
  for packages in "$venv"/lib/python3*/site-packages; do
    printf '%s\n' "$top" > "$packages/nodepulse.pth"
  done
}

find_python() {
  for candidate in python3.11 python3 python3.12 python3.13; do
    if command -v "$candidate" > /dev/null 2>&1 \
      && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return 0
    fi
  done
  fail "Python 3.11 or later is needed (Debian: apt-get install python3)"
}

# uv installs everything else. It comes from pip, wherever this Python has one: as a module, in a virtual
# environment of its own, or as the wheel that Debian keeps for that purpose.
find_uv() {
  if [ ! -x "$tools/bin/uv" ]; then
    say "installing the installer (uv) into .tools"
    if "$python" -m pip --version > /dev/null 2>&1; then
      install_uv "$python" -m pip
    elif "$python" -m venv "$tools/boot" > /dev/null 2>&1; then
      install_uv "$tools/boot/bin/python" -m pip
    else
      rm -rf "$tools/boot"
      for wheel in /usr/share/python-wheels/pip-*.whl; do
        [ -f "$wheel" ] || fail "this Python has no pip; install it (Debian: apt-get install python3-pip)"
        install_uv "$python" "$wheel/pip"
        break
      done
    fi
  fi
  echo "$tools/bin/uv"
}

install_uv() { # the command that is pip
  "$@" install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action ignore \
    --target "$tools" uv >&2 || fail "uv cannot be installed; is the package index reachable?"
}

say() {
  echo "nodepulse: $*" >&2
}

fail() {
  say "$*"
  exit 1
}
