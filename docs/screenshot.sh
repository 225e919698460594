#!/usr/bin/env bash
# Takes the README's picture: a run of The Forge in the Prefect UI of the embedded stack, by headless Chromium.
#
#   REGION=10000002 make up                      in one shell
#   docs/screenshot.sh docs/images/the-forge.png in another; needs Debian's package chromium
set -euo pipefail
cd "$(dirname "$0")/.."
picture=$(realpath "${1:?give the PNG to write}")
api=$(.venv/bin/python -c 'from deployments.local.stack import read_addresses as a; print(a().api_url)')
export PREFECT_API_URL=$api PREFECT_HOME=$PWD/.local/prefect
run=$(.venv/bin/prefect deployment run market-data/the-forge --param force=true --watch | sed -n 's/.*UUID: //p')
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
  --user-data-dir="$profile" --window-size=1400,900 --virtual-time-budget=20000 --hide-scrollbars \
  --screenshot="$picture" "${api%/api}/runs/flow-run/$run"
