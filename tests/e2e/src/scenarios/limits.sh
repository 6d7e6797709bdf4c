# What `limits.rs` has done in the guest, with the configuration on standard input.
set -e
oci() { /init oci --root /run/e2e-oci/state "$@"; }
status() { oci state box | busybox sed -n 's/.*"status": *"\([a-z]*\)".*/\1/p'; }
busybox mkdir -p /run/e2e-oci/rootfs
cd /run/e2e-oci
busybox mkdir -p rootfs/bin rootfs/proc rootfs/sys
busybox cp "$(busybox which busybox)" rootfs/bin/busybox
busybox cat >config.json
oci run --detach box >shown 2>&1 </dev/null
# As many as `limits.rs` looks at.
until busybox test "$(busybox wc -l <shown)" -ge 9; do busybox sleep 0.1; done
busybox cat shown
oci pause box
status
oci resume box
status
oci update --pids-limit 7 box
echo "pids $(busybox cat /sys/fs/cgroup/e2e/box/pids.max)"
# Memory beyond the limit, which swap does not hold up.
oci update --memory 16777216 --memory-swap 16777216 box
oci exec box busybox dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null && code=0 || code=$?
echo "killed $code"
oci delete --force box
busybox test ! -e /sys/fs/cgroup/e2e -a ! -e state/box && echo gone
busybox rm -rf /run/e2e-oci
