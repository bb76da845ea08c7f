#!/bin/bash
# Runs in the virtual machine: DEMO_DIR is a copy of a directory, `publish` the example program.
# Publishes it once, changes it three times, fails once, and meets a conflict once; each has to end
# as it should, or the demo fails.
set -euo pipefail
export LC_ALL=C

source=/tmp/source target=demo/site place=/srv/site sections=0 checks=0

section() { sections=$((sections + 1)); printf '\n== %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
check() { checks=$((checks + 1)); printf '   ok: %s\n' "$1"; }

# One line for everything below a directory: names, types, modes, owners, links and contents.
state() (
    cd "$1"
    { find . -printf '%p %y %m %U:%G %l\0' | sort -z; find . -type f -print0 | sort -z | xargs -0r sha256sum; } |
        sha256sum | cut -c1-16
)

# Sets `file` to the first one that find finds, or fails.
first() { IFS= read -r -d '' file < <(find "$@" -print0 | sort -z); }

show() {
    zfs list -r -t all -o name,used,refer,mountpoint,mounted demo
    printf 'checksum at %s: %s (%s files)\n' "$place" "$(state "$place")" "$(find "$place" -type f -printf x | wc -c)"
}

is_source() { [ "$(state "$place")" = "$(state "$source")" ] || fail "$1: the target is not the source"; }

nothing_left() {
    local names
    names=$(zfs list -H -o name -r -t all demo)
    ! grep -E -- '-txn-|-old-|@txn-' <<<"$names" || fail 'something is left'
    [ "$(zfs get -H -o value,source mountpoint "$target")" = "$place"$'\t'local ] || fail 'mountpoint differs'
}

published() {
    is_source "$1"
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
# What the demo adds has names that the directory does not have.
new=demo
while compgen -G "$source/$new-*" >/dev/null; do new+=-more; done
news=$source/$new-news

section 'first publish: the dataset is created (init)'
publish "$source" "$target" "$place"
show
published 'first publish'

section 'second publish: files changed and added (update)'
mkdir "$news"
date | tee "$news/today" >"$news/yesterday"
if first "$source" -maxdepth 1 -type f; then echo changed >>"$file"; fi
publish "$source" "$target"
published 'second publish'

section 'third publish: files deleted, a link and modes'
rm "$news/yesterday"
if first "$source" -mindepth 2 -type f -not -path "$news/*"; then rm -- "$file"; fi
ln -s "$new-news/today" "$source/$new-latest"
chmod 2750 "$news"
publish "$source" "$target"
published 'third publish'

section 'fourth publish: a large file'
head -c 16M /dev/urandom >"$source/$new-large"
publish "$source" "$target"
show
published 'fourth publish'

section 'a publish that fails half-way, and is rolled back'
before=$(state "$place")
echo 'never to be seen' >"$source/$new-aaa"
mkfifo "$source/$new-zzz-pipe"
if publish "$source" "$target"; then fail 'publishing a named pipe succeeded'; fi
rm "$source/$new-zzz-pipe" "$source/$new-aaa"
unpublished 'rolled back' "$before"

section 'a publish that meets a conflict: another one commits while it is at work'
head -c 96M /dev/urandom >"$source/$new-ballast"
publish "$source" "$target" &
slow=$!
# Its workspace is mounted here, and it is at its longest file.
until compgen -G "/run/zfs-txn/*/$new-ballast" >/dev/null; do
    kill -0 "$slow" || fail 'the slow publish was not slow'
    [ "$SECONDS" -lt 1500 ] || fail 'the slow publish did not get to its longest file'
    sleep 0.01
done
kill -STOP "$slow"
rm "$source/$new-ballast"
date >"$news/meanwhile"
publish "$source" "$target"
is_source 'the one in between'
between=$(state "$place")
kill -CONT "$slow"
if wait "$slow"; then fail 'the second of two winners'; fi
unpublished 'conflict' "$between"

printf '\n== the whole at the end\n'
show
zpool destroy demo
[ "$checks" -eq "$sections" ] || fail "$sections sections, but only $checks checks"
printf '\ndemo: all %s sections ended as they should\n' "$sections"
