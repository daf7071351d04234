#!/bin/bash
# Runs the README's two commands as a newcomer would: in a bare Debian, in a fresh clone of what is committed here.
#     tests/fresh_machine.sh bookworm|trixie|sid [demo|test] [ARGS]
# Neither demo nor test: both. ARGS go to make. Needs root, debootstrap, and 12 GB in $TMPDIR (else /var/tmp). Packages come as
# they do on this machine: its Debian mirror, proxies and settings of pip hold inside too.
set -euo pipefail

# All that mounts or starts something runs in namespaces of its own, which end with it, however it ends.
inside() {
  local here=$1 root=$2 suite=$3 args=$4 mirror file path word
  shift 4
  # This machine's mirror, where it is a Debian itself; else debootstrap's own.
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
    grep -v security | head -n 1 || true)
  debootstrap --variant=minbase --include=python3,python3-venv,make,git,ca-certificates "$suite" "$root" $mirror \
    > "$root.log" 2>&1 || { tail "$root.log" >&2; exit 1; }
  git clone --quiet --no-hardlinks "$here" "$root/root/rep3d"
  echo "== $suite: bare system and clone of $(git -C "$here" rev-parse --short HEAD): $SECONDS s"

  mount --rbind /dev "$root/dev"
  mount --rbind /sys "$root/sys"
  mount -t proc proc "$root/proc"
  cp --dereference /etc/resolv.conf /etc/hosts "$root/etc/"
  apt-config dump | grep -E '^Acquire::[a-z]+::(Proxy|CaInfo) ' > "$root/etc/apt/apt.conf.d/00host" || true

  local environment=() words=()
  while IFS= read -r word; do
    environment+=("$word") && words+=(${word#*=})
  done < <(env | grep -E '^(PIP_|OPENBLAS_|(https?|all|no)_proxy=|(HTTPS?|ALL|NO)_PROXY=)' || true)
  for file in /etc/pip.conf /etc/xdg/pip/pip.conf "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf" "${PIP_CONFIG_FILE:-}"; do
    [ -f "$file" ] || continue
    path=$root/${file/#$HOME//root}
    mkdir -p "$(dirname "$path")"
    cp "$file" "$path"
    words+=($(cat "$file"))
  done
  # What those settings name on this machine's disk: certificates, wheels, and local indexes with the files beside them.
  for word in "${words[@]}"; do
    case "$word" in
      file://*) path=$(dirname "${word#file://}") ;;
      /*) path=$word ;;
      *) continue ;;
    esac
    mountpoint --quiet "$root$path" && continue
    if [ -d "$path" ]; then
      mkdir -p "$root$path"
    elif [ -f "$path" ]; then
      mkdir -p "$(dirname "$root$path")" && touch "$root$path"
    else
      continue
    fi
    mount --bind -o ro "$path" "$root$path"
  done

  for command in "$@"; do
    echo "== $suite: make $command${args:+ ARGS=\"$args\"}"
    SECONDS=0
    chroot "$root" env -i HOME=/root USER=root LANG=C.UTF-8 TERM="${TERM:-dumb}" PATH=/usr/sbin:/usr/bin:/sbin:/bin \
      "${environment[@]}" make --no-print-directory -C /root/rep3d "$command" ARGS="$args"
    echo "== $suite, $(chroot "$root" /root/rep3d/.venv/bin/python --version): make $command: $SECONDS s; .venv $(du -sm "$root/root/rep3d/.venv" | cut -f1) MB"
  done
}

clean() {
  pkill -KILL -P "$!" && wait "$!" || true  # the first process of the namespaces takes all others with it
  rm -rf --one-file-system "$root" "$root.log"
} 2>/dev/null

main() {
  if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
    return
  fi
  local suite=${1:-} commands=(demo test) here
  case "$suite" in bookworm | trixie | sid) ;; *) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;; esac
  shift
  case "${1:-}" in demo | test) commands=("$1") && shift ;; esac
  [ "$(id -u)" = 0 ] || { echo "Only root can make a machine within this one. Say: sudo $0 $suite" >&2; exit 2; }
  command -v debootstrap >/dev/null || { echo "Not installed: debootstrap. Say: apt-get install debootstrap" >&2; exit 2; }
  here=$(cd "$(dirname "$0")/.." && pwd)
  root=$(mktemp -d "${TMPDIR:-/var/tmp}/rep3d-$suite-XXXXXX")
  trap clean EXIT
  set -m  # else what runs in the background could not be stopped with Ctrl+C
  unshare --mount --pid --fork --kill-child --mount-proc \
    bash "$0" --inside "$here" "$root" "$suite" "$*" "${commands[@]}" &
  wait "$!"
}

main "$@"
exit
