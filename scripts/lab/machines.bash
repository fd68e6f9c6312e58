# The machines of the lab; sourced by `run`. A check is a program in the shared directory (guest/), started in the machine by
# guest/start; what it prints comes back over a second serial port. Its last line is "LAB-END exit-code": without that, the
# machine went down or ran out of time.

# x86 JOB SECONDS [-systemd] [-watchdog] [-state] [-wire] [-image NAME] -- CHECK [ARGUMENT]: boots an image (`x86`) and prints what
# CHECK prints. `-wire`: two network cards on one wire, eth0 and eth1.
# Nothing that it writes is kept, except on the disk `state`, and that one only while this machine runs, resets included.
x86() {
    local job=$1 limit=$2 out=$lab/runs/$1.out image=x86 card init='ro init=/usr/local/sbin/lab-init' devices=() accelerator
    shift 2
    while [ "$1" != -- ]; do
        case $1 in
            -systemd) init='rw systemd.show_status=0' ;;
            -image)
                image=$2
                shift
                ;;
            -wire)
                for card in 0 1; do
                    devices+=(-netdev "hubport,id=card$card,hubid=0" -device "virtio-net-pci,netdev=card$card,mac=52:54:00:00:00:0$card")
                done
                ;;
            -watchdog) devices+=(-device i6300esb -action watchdog=reset) ;;
            -state)
                rm -f "$lab/runs/$job.state"
                truncate -s 64M "$lab/runs/$job.state"
                mke2fs -q -t ext4 "$lab/runs/$job.state"
                devices+=(-drive "file=$lab/runs/$job.state,format=raw,if=virtio")
                ;;
        esac
        shift
    done
    # kvm_pvm runs only guests that know it, and says so nowhere: others hang.
    accelerator=(-accel tcg,thread=multi -cpu max)
    if [ -w /dev/kvm ] && [ ! -d /sys/module/kvm_pvm ]; then accelerator=(-accel kvm -cpu host); fi
    : > "$out"
    timeout --foreground -k 5 "$limit" qemu-system-x86_64 -M q35 "${accelerator[@]}" -smp 2 -m 1024 -nodefaults -no-user-config \
        -display none -monitor none \
        -kernel "$lab/$image/vmlinuz" -initrd "$lab/$image/initrd" \
        -append "root=/dev/vda rootfstype=ext4 $init console=ttyS0 loglevel=4 panic=1 net.ifnames=0 mitigations=off \
modprobe.blacklist=iTCO_wdt,i2c_i801 lab.check=$2 lab.argument=${3:-}" \
        -drive "file=$lab/$image/disk,format=raw,if=virtio,snapshot=on,cache=unsafe" "${devices[@]}" \
        -virtfs "local,path=$lab/share,mount_tag=host,security_model=none,readonly=on" \
        -device virtio-rng-pci -serial "file:$lab/runs/$job.console" -serial "file:$out" < /dev/null > "$lab/runs/$job.qemu" 2>&1 &
    follow "$job" $!
}

# pi JOB SECONDS -- CHECK: boots an emulated Raspberry Pi 3 with nothing but busybox, the programs for aarch64 and CHECK.
pi() {
    local job=$1 limit=$2 check=$4 tree
    tree=$(mktemp -d "$lab/runs/pi.XXXXXX")
    mkdir -p "$tree"/{bin,dev,etc,host,proc,root,run,sys,tmp,var/lib/multusd}
    cp "$lab/pi/root/bin/busybox" "$lab"/pi/bin/* "$here/guest/pi-init" "$here/guest/$check" "$tree/bin"
    (cd "$tree" && find . | cpio -o -H newc --quiet | gzip -1) > "$lab/runs/pi.initrd"
    rm -r "$tree"
    : > "$lab/runs/$job.out"
    # iomem=relaxed: Debian's kernel has no /dev/gpiomem, and without it keeps the registers from /dev/mem.
    timeout --foreground -k 5 "$limit" qemu-system-aarch64 -M raspi3b -display none -monitor none -no-reboot \
        -kernel "$lab/pi/vmlinuz" -dtb "$lab/pi/bcm2837-rpi-3-b.dtb" -initrd "$lab/runs/pi.initrd" \
        -append "console=ttyAMA0,115200 rdinit=/bin/pi-init panic=-1 loglevel=4 iomem=relaxed lab.check=$check" \
        -serial "file:$lab/runs/$job.console" -serial "file:$lab/runs/$job.out" < /dev/null > "$lab/runs/$job.qemu" 2>&1 &
    follow "$job" $!
}

# follow JOB PID: prints what the check prints while it runs, and ends the machine when it has said that it is done.
follow() {
    local job=$1 machine=$2 out=$lab/runs/$1.out seen=0 whole ended
    while :; do
        kill -0 "$machine" 2> /dev/null || machine=
        grep -aq '^LAB-END' "$out" && ended=1 || ended=
        # A line that is still being written comes next time.
        whole=$(wc -l < "$out")
        if [ "$whole" -gt "$seen" ]; then
            sed -n "$((seen + 1)),${whole}p" "$out" | tr -d '\000\r' | grep -av '^LAB-END'
            seen=$whole
        fi
        [ -z "$ended" ] || break
        [ -n "$machine" ] || { echo "the machine of $job went down, or its time was over"; return 1; }
        sleep 0.2
    done
    # Whether a machine can switch itself off is up to the emulator; this one is no longer needed.
    [ -z "$machine" ] || kill "$machine" 2> /dev/null || true
    wait || true
    grep -aq '^LAB-END 0' "$out"
}
