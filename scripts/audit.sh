#!/bin/sh
# Looks for known vulnerabilities in what is pinned, where the database can be reached: audit.sh PYTHON
# A finding fails, unless scripts/audit_accepted.txt names its id with a reason.
set -e
cd "$(dirname "$0")/.."
# A mirror of PyPI may have the packages without what is known of them: jinja2 3.1.4 has a known vulnerability.
if ! "$1" - <<'CHECK' 2>/dev/null
import json, urllib.request
with urllib.request.urlopen("https://pypi.org/pypi/jinja2/3.1.4/json", timeout=3) as answer:
    assert json.load(answer)["vulnerabilities"]
CHECK
then
  echo "pip-audit: pypi.org cannot be reached from here, so no vulnerabilities were looked for."
  exit 0
fi
accepted=$(sed -n 's/^\([A-Z][A-Za-z0-9-]*\) .*/--ignore-vuln \1/p' scripts/audit_accepted.txt)
# shellcheck disable=SC2086 # a list of options
exec "$1" -m pip_audit --no-deps --disable-pip --progress-spinner off --timeout 10 $accepted \
  -r requirements.txt -r requirements-dev.txt
