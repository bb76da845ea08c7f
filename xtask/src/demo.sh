#!/bin/bash
# Runs in the virtual machine: DEMO_DIR is a copy of a directory, `publish` the example program.
# Publishes it once, changes it three times, fails once, and meets a conflict once; each has to end
# as it should, or the demo fails.
set -euo pipefail

source=/tmp/source target=demo/site place=/srv/site checks=0

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
check() { checks=$((checks + 1)); printf '   ok: %s\n' "$1"; }

# One line for everything below a directory: names, types, modes, owners, links and contents.
state() (
    cd "$1"
    { find . -printf '%p %y %m %U:%G %l\n' | sort; find . -type f -print0 | sort -z | xargs -0r sha256sum; } |
        sha256sum | cut -c1-16
)

show() {
    zfs list -r -t all -o name,used,refer,mountpoint,mounted demo
    printf 'checksum at %s: %s (%s files)\n' "$place" "$(state "$place")" "$(find "$place" -type f | wc -l)"
}

nothing_left() {
    ! zfs list -H -o name -r -t all demo | grep -E -- '-txn-|-old-|@txn-' || fail 'something is left'
    [ "$(zfs get -H -o value,source mountpoint "$target")" = "$place"$'\t'local ] || fail 'mountpoint differs'
}

published() {
    [ "$(state "$place")" = "$(state "$source")" ] || fail "$1: the target is not the source"
    nothing_left
    check "$1: what is at $place is what is in the source, and nothing else is left"
}

unpublished() {
    [ "$(state "$place")" = "$2" ] || fail "$1: the target has changed"
    nothing_left
    check "$1: $place is as it was, and nothing is left"
}

truncate -s 2G /tmp/demo.img
zpool create -o cachefile=none -O mountpoint=none demo /tmp/demo.img
cp -a "$DEMO_DIR" "$source"

say 'first publish: the dataset is created (init)'
publish "$source" "$target" "$place"
show
published 'first publish'

say 'second publish: files changed and added (update)'
mkdir -p "$source/news"
date >"$source/news/today"
find "$source" -maxdepth 1 -type f | head -n 1 | while read -r file; do echo changed >>"$file"; done
publish "$source" "$target"
published 'second publish'

say 'third publish: a file deleted, a link and modes'
find "$source" -mindepth 2 -type f -not -path '*/news/*' | sort | head -n 1 | xargs -r rm
ln -s news/today "$source/latest"
chmod 2750 "$source/news"
publish "$source" "$target"
published 'third publish'

say 'fourth publish: a large file'
head -c 16M /dev/urandom >"$source/large"
publish "$source" "$target"
show
published 'fourth publish'

say 'a publish that fails half-way, and is rolled back'
before=$(state "$place")
echo 'never to be seen' >"$source/aaa"
mkfifo "$source/zzz-pipe"
if publish "$source" "$target"; then fail 'publishing a named pipe succeeded'; fi
rm "$source/zzz-pipe" "$source/aaa"
unpublished 'rolled back' "$before"

say 'a publish that meets a conflict: another one commits while it is at work'
head -c 96M /dev/urandom >"$source/ballast"
publish "$source" "$target" &
slow=$!
# Its workspace is mounted here, and it is at its longest file.
for _ in $(seq 6000); do compgen -G '/run/zfs-txn/*/ballast' >/dev/null && break; sleep 0.01; done
kill -STOP "$slow"
rm "$source/ballast"
publish "$source" "$target"
between=$(state "$place")
kill -CONT "$slow"
if wait "$slow"; then fail 'the second of two winners'; fi
unpublished 'conflict' "$between"

say 'the whole at the end'
show
zpool destroy demo
printf '\ndemo: %s of 6 publishes ended as they should\n' "$checks"
[ "$checks" -eq 6 ]
