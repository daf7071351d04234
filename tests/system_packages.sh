#!/bin/sh
# Installs the browser that the dashboard's tests drive, where that is possible without asking; never fails.
for browser in chromium chromium-browser google-chrome google-chrome-stable chrome; do
  command -v "$browser" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "Installing chromium for the dashboard's tests"
  { apt-get install -y -qq chromium || { apt-get update -qq && apt-get install -y -qq chromium; }; } >/dev/null 2>&1 && exit 0
fi
echo "No Chromium found: the dashboard's tests will be skipped. To run them: sudo apt-get install chromium"
exit 0
