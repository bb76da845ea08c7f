#!/bin/busybox sh
# First program of the guest: finds its disks and hands over to the payload's init.
set -e
export PATH=/bin
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
for module in /modules/*.ko*; do
    [ -e "$module" ] || continue
    # Not every busybox loads compressed modules.
    case $module in
    *.xz) /bin/busybox unxz -c "$module" >/module.ko ;;
    *) /bin/busybox cp "$module" /module.ko ;;
    esac
    /bin/busybox insmod /module.ko
done
tries=0
while [ ! -b /dev/vda ] || [ ! -b /dev/vdb ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "xtask: no disks"; /bin/busybox poweroff -f; }
    /bin/busybox sleep 0.1
done
/bin/busybox mount -t ext4 -o noatime /dev/vda /root
/bin/busybox mkdir -p /root/payload
/bin/busybox mount -t ext4 -o noatime /dev/vdb /root/payload
for dir in dev proc sys; do
    /bin/busybox mount --move /$dir /root/$dir
done
exec /bin/busybox switch_root /root /payload/.guest/init
