#!/usr/bin/env bash
# Makes the committed sample report from a run on this machine: reports/sample.{html,png}.
# Needs Chromium for the picture. A record may be given instead of a fresh run.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ $# -gt 0 ]; then
  cargo run --release --locked -- report "$1" -o "$folder" --format html
else
  cargo run --release --locked -- run quick -o "$folder" --anonymise
fi
cp "$folder/report.html" reports/sample.html
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$folder/profile" \
  --screenshot=reports/sample.png --window-size=1000,1500 "file://$PWD/reports/sample.html"
