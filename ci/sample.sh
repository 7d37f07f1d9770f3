#!/usr/bin/env bash
# Makes the committed sample report from a run on this machine: reports/sample.{html,png}.
# Needs Chromium for the picture. A record may be given instead of a fresh run.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
folder=$scratch
if [ $# -gt 0 ]; then
  cargo run --release --locked -- report "$1" -o "$folder" --format html
else
  # In a folder of a name that anyone may repeat: the report shows the command.
  program=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/tritmark
  cargo build --release --locked
  (cd "$folder" && "$program" run quick -o sample --anonymise)
  folder=$folder/sample
fi
cp "$folder/report.html" reports/sample.html
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$scratch/profile" \
  --screenshot=reports/sample.png --window-size=1000,1500 "file://$PWD/reports/sample.html"
