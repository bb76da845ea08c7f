#!/bin/bash
# Second program of the guest: sets the system up, runs the job, reports its status.
export PATH=/payload/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 ZFS_TXN_VM=1 RUST_BACKTRACE=1

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for dir in /dev/shm /tmp /var/tmp; do
    mount -t tmpfs -o mode=1777 tmpfs $dir
done
mount -t tmpfs -o mode=755 tmpfs /run
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
ln -sf /proc/self/mounts /etc/mtab
hostname vm
echo 127.0.0.1 localhost vm >/etc/hosts
/usr/bin/busybox ip link set lo up

# The ports are told apart by name, which udev would turn into links.
port() {
    local file
    for file in /sys/class/virtio-ports/*/name; do
        if [ "$(<"$file")" = "$1" ]; then
            echo "/dev/$(basename "$(dirname "$file")")"
        fi
    done
}
exec 3<>"$(port control)"
mkfifo /run/out /run/err
cat /run/out >"$(port stdout)" &
out=$!
cat /run/err >"$(port stderr)" &
err=$!

modprobe zfs || echo "xtask: PANIC at modprobe: zfs.ko did not load" >/dev/console
[ -e /etc/hostid ] || zgenhostid
# On a whole disk ZFS makes partitions, and waits for udev to name them.
if [ -b /dev/vdc ]; then
    /usr/lib/systemd/systemd-udevd --daemon
    udevadm trigger --subsystem-match=block
    udevadm settle --timeout=60
fi

# Programs get pipes: a port can be opened only once, a pipe through /dev/stdout again.
if [ -e /payload/.guest/interactive ]; then
    # Input that came before the terminal was open would be lost.
    exec 4<>/dev/hvc0
    echo ready >&3
    setsid -c -w bash /payload/.guest/job <&4 >&4 2>&1 3>&- 4>&-
    status=$?
    : >/run/out >/run/err
else
    echo ready >&3
    setsid -w bash /payload/.guest/job </dev/null >/run/out 2>/run/err 3>&-
    status=$?
fi
# A daemon left by the job would hold the pipes open for ever.
for _ in {1..50}; do
    kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null || break
    sleep 0.1
done
echo "exit $status" >&3
# The host answers when it has everything.
read -r -t 20 _ <&3
sync
exec /usr/bin/busybox poweroff -f
