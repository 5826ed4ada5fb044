#!/usr/bin/env bash
# Install a system program or library if possible; if not, print what will not work. Never fails.
# provide.sh PROGRAM|LIBRARY.so.N[|OTHER] MESSAGE PACKAGE…
set -uo pipefail
names=$1 message=$2
shift 2
there() {
    for name in ${names//|/ }; do
        case $name in
            *.so.*) [[ $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null) == *"$name "* ]] && return ;;
            *) command -v "$name" >/dev/null && return ;;
        esac
    done
    return 1
}
there && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install=(timeout 300 apt-get install -o DPkg::Lock::Timeout=120 --yes --no-install-recommends "$@")
    "${install[@]}" >/dev/null 2>&1 || { timeout 300 apt-get update && "${install[@]}"; } >/dev/null 2>&1
fi
there || echo "$message"
exit 0
