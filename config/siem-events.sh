#!/bin/sh
# Tell syslog what no process of the relay logs. Needs jq and logger; run it as the relay's user.
#
#   siem-events.sh acts FILE [options of relay]   what administrators did since the last time, of which FILE keeps the number; every minute
#   siem-events.sh audit [options of relay]       whether the log of these acts is whole; each day, as the role watch or api
#   siem-events.sh egress [options of relay]      whether the egress log is whole; each day, as the role push
#
# Options of relay: --config /etc/push-relay/relay.toml, --role watch. The lines are JSON as the relay's own, so rsyslog-cef.conf makes CEF of
# them. It ends with a status that is not 0 if something could not be read or sent; the next run sends what is left.
set -eu
relay=${RELAY:-relay}
logger=${LOGGER:-logger --tag push-relay --priority authpriv.notice --size 16KiB}

acts() {
  told=$1
  shift
  last=0
  [ ! -e "$told" ] || last=$(cat "$told")
  listed=$("$relay" audit acts --json --limit 10000 "$@")
  acts=$(printf '%s' "$listed" | jq --compact-output --argjson last "$last" 'sort_by(.number)[] | select(.number > $last)
    | {event: "administrator acted", number, at, who, via, what, server, subject, detail}')
  [ -n "$acts" ] || return 0
  printf '%s\n' "$acts" | $logger
  printf '%s\n' "$acts" | jq --slurp 'map(.number) | max' > "$told.new"
  mv "$told.new" "$told"
}

verify() {
  log=$1
  shift
  ! found=$("$relay" audit verify "$@" 2>&1) || return 0
  # What names thousands of lines is longer than an argument and an event may be.
  found=$(printf '%s' "$found" | head -c 4000)
  jq --null-input --compact-output --arg log "$log" --arg found "$found" \
    '{event: "audit verification failed", detail: "\($log): \($found)"}' | $logger
}

case ${1:-} in
  acts) shift && acts "$@" ;;
  audit) shift && verify "administrative acts" --acts "$@" ;;
  egress) shift && verify "egress log" "$@" ;;
  *) sed -n 's/^#   //p' "$0" && exit 64 ;;
esac
