#!/usr/bin/env bash
# The tests of the web pages need chromium. Install it where that is possible; where not, they say that they did not run.
set -uo pipefail
command -v chromium >/dev/null || command -v chromium-browser >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install=(timeout 300 apt-get install --yes --no-install-recommends chromium fonts-dejavu-core)
    "${install[@]}" >/dev/null 2>&1 || { timeout 300 apt-get update && "${install[@]}"; } >/dev/null 2>&1
fi
command -v chromium >/dev/null || echo "There is no chromium, and it cannot be installed here: pages are not tested in a browser."
