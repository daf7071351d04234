#!/bin/sh
# Installs what some tests need from the system, where that is possible without asking: a browser for the dashboard's tests, nginx,
# and the libraries and fonts that Qt and VTK need for the tests of the Slicer module. Never fails; at once where nothing is missing.
missing=
found=
for browser in chromium chromium-browser google-chrome google-chrome-stable chrome; do
  command -v "$browser" >/dev/null 2>&1 && found="$browser" && break
done
[ -n "$found" ] || missing="chromium"
# A proxy, to test the configuration that docs/security.md gives; where systemd runs it would be started on port 80, and stay.
command -v nginx >/dev/null 2>&1 || [ -d /run/systemd/system ] || missing="$missing nginx"
if command -v dpkg-query >/dev/null 2>&1; then
  installed=" $(dpkg-query -W -f='${db:Status-Status}:${Package} ' 2>/dev/null) "
  for package in libgl1 libegl1 libegl-mesa0 libgl1-mesa-dri libfontconfig1 libdbus-1-3 libxkbcommon0 libxrender1 fonts-dejavu-core; do
    case "$installed" in *" installed:$package "*) ;; *) missing="$missing $package" ;; esac
  done
  # Renamed to libglib2.0-0t64 in Debian 13 and Ubuntu 24.04.
  case "$installed" in *" installed:libglib2.0-0"*) ;; *) missing="$missing libglib2.0-0" ;; esac
fi
[ -n "$missing" ] || exit 0
# shellcheck disable=SC2086 # a list of packages
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "Installing for the tests: $missing"
  { apt-get install -y -qq $missing || { apt-get update -qq && apt-get install -y -qq $missing; }; } >/dev/null 2>&1 && exit 0
  # One that does not exist here must not keep the others away.
  for package in $missing; do apt-get install -y -qq "$package" >/dev/null 2>&1 || echo "Could not install $package"; done
  exit 0
fi
echo "Missing for some tests, which will be skipped: $missing. To run them: sudo apt-get install $missing"
exit 0
