#!/bin/sh
# Prints a Python that Rep3D Label runs on and that can make an environment: the one that is named, else the first one found.
# Where there is none, fails and says which one this system offers.
#     sh scripts/find_python.sh [PYTHON]
# REP3D_OS_RELEASE names another file than /etc/os-release, for tests.
minors="11 12 13 14 10"  # of Python 3; the likeliest to have every package first

# What to type for a Python from this system's package lists; nothing where they have none.
offered() {
  for minor in $minors; do
    if command -v apt-get >/dev/null; then
      LC_ALL=C apt-cache policy "python3.$minor-venv" 2>/dev/null | grep -q 'Candidate: [^(]' || continue
      install="sudo apt-get install python3.$minor-venv"
    elif command -v dnf >/dev/null; then
      dnf -q list "python3.$minor" >/dev/null 2>&1 || continue
      install="sudo dnf install python3.$minor"
    elif command -v brew >/dev/null; then
      install="brew install python@3.$minor"
    else
      return
    fi
    echo "$install"
    return
  done
}

names=${1:-$(for minor in $minors; do echo "python3.$minor"; done) python3 python}
without_venv=
others=
for python in $names; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
  case "$version" in
    3.10 | 3.11 | 3.12 | 3.13 | 3.14) ;;
    *) others="$others, $python is $version" && continue ;;
  esac
  # Debian and Ubuntu keep what a new environment needs in a package of its own.
  if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    command -v "$python"
    exit 0
  fi
  without_venv=${without_venv:-$version}
done

if [ -n "$without_venv" ]; then
  echo "Python $without_venv is here, but not its module venv, which makes environments."
  minors=$without_venv && minors=${minors#3.}
else
  echo "Expected Python 3.10 to 3.14${1:+ at '$1'}, found none${others:+ (${others#, })}."
fi >&2
install=$(offered)
if [ -n "$install" ]; then
  echo "Install it: $install"
else
  system=$(. "${REP3D_OS_RELEASE:-/etc/os-release}" 2>/dev/null && echo "$PRETTY_NAME")
  echo "${system:-This system} offers none$(command -v apt-get >/dev/null && echo " (unless its lists are old: sudo apt-get update)")."
fi >&2
echo "Or name a Python that lies elsewhere: make PYTHON=/path/to/python3" >&2
exit 2
