# Run by unshare, in namespaces of its own: makes a root over the host's and starts
# systemd in it. BOX is an empty directory, UNITS one with unit files, KEEP the
# directories to be seen inside as they are outside.
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 box "$BOX"
mkdir "$BOX/upper" "$BOX/work" "$BOX/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$BOX/upper,workdir=$BOX/work" "$BOX/root"
cd "$BOX/root"
for directory in $KEEP; do
    mkdir -p "./$directory"
    mount --rbind "$directory" "./$directory"
done
mount -t proc proc proc
# Else it would set the host's kernel parameters.
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
# Not the host's devices: systemd makes nodes and sets their rights.
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom tty; do
    : > "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
ln -s /proc/self/fd dev/fd
mkdir dev/shm
mount -t tmpfs run run -o mode=755
# What the host's packages would start is not wanted here.
mount -t tmpfs none usr/lib/systemd/system-generators
mkdir -p run/systemd/system
for wants in usr/lib etc run; do
    for target in sysinit basic local-fs sockets timers; do
        for unit in "$wants/systemd/system/$target.target.wants"/*; do
            name=${unit##*/}
            case "$name" in dbus.socket | '*') ;; *) ln -sf /dev/null "run/systemd/system/$name" ;; esac
        done
    done
done
cp "$UNITS"/* run/systemd/system/
mkdir outside
pivot_root . outside
umount -l outside
cd /
exec env -i container=leakwatch-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=leakwatch-test.target \
    --show-status=no --log-target=null
