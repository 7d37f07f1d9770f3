#!/usr/bin/env bash
# The HTML report in a real browser: made-up records with hostile names, and the committed sample.
set -euo pipefail
cd "$(dirname "$0")/.."

find_browser() {
  for name in chromium chromium-browser google-chrome-stable google-chrome; do
    command -v "$name" && return
  done
  return 1
}
if ! browser=$(find_browser); then
  if ! { command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }; then
    echo "no Chromium, and none could be installed: the report was not checked in a browser" >&2
    exit 1
  fi
  browser=$(find_browser)
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
TRITMARK_REPORT_DIR=$folder cargo test --locked --test report
pages=("$folder"/one/report.html "$folder"/several/report.html)
[ -f reports/sample.html ] && pages+=(reports/sample.html)
python3 ci/browser.py "$browser" "${pages[@]}"
