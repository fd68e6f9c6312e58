# What the lab needs before a machine can boot; sourced by `run`. Every function does nothing when its work is done, so that
# only the first run takes minutes. Their output goes to the log of the run; a failing download is tried again.

suite=bookworm

# retry COMMAND...: a mirror may be busy, or change while it is read.
retry() {
    local pause
    for pause in 3 20; do
        "$@" && return 0
        echo "failed, again in $pause s: $*"
        sleep "$pause"
    done
    "$@"
}

# install PACKAGE...: on this machine.
install() {
    local package missing=()
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    # A qemu-utils of a newer release may stay in the way of the emulators of this one.
    if [[ " ${missing[*]} " == *" qemu-system-"* ]] && dpkg-query -W qemu-utils > /dev/null 2>&1; then
        missing+=("qemu-utils/$suite")
    fi
    retry apt-get update -q
    DEBIAN_FRONTEND=noninteractive retry apt-get install -y -q --no-install-recommends --allow-downgrades "${missing[@]}"
}

# done_before FILE INPUT...: whether FILE was made from just these inputs; if not, a successful end is to call `done_now FILE`.
done_before() {
    local file=$1
    shift
    stamp=$(printf '%s\n' "$@" | sha256sum)
    [ "$(cat "$file.stamp" 2> /dev/null)" = "$stamp" ] && [ -e "$file" ]
}
done_now() { echo "$stamp" > "$1.stamp"; }

# image NAME PACKAGE...: a Debian with systemd and the PREEMPT_RT kernel: $lab/NAME/{disk,vmlinuz,initrd,release}. It starts
# what the share `host` holds (guest/start), so that it is as good for every check.
image() {
    local name=$1 out=$lab/$1 packages root
    packages=systemd-sysv,udev,dbus,kmod,iproute2,procps,python3,gpiod,linux-image-rt-amd64,initramfs-tools,zstd
    shift
    packages=$(IFS=,; echo "$packages${*:+,$*}")
    done_before "$out/disk" "$packages" "$(declare -f image)" "$(cat "$here"/guest/{init,lab.service})" && return 0
    install mmdebstrap e2fsprogs zstd
    mkdir -p "$out"
    root=$(mktemp -d "$out/root.XXXXXX")
    # An initial file system with just the drivers of the disk is small and quick.
    local few='mkdir -p "$1/etc/initramfs-tools/conf.d"
        printf "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n" > "$1/etc/initramfs-tools/conf.d/lab.conf"
        printf "virtio_pci\nvirtio_blk\next4\n" > "$1/etc/initramfs-tools/modules"'
    # The dates of an index do not count: the clock of a build machine may be anything.
    retry mmdebstrap --variant=minbase --mode=root --format=directory --include="$packages" --essential-hook="$few" \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$root" /etc/apt/sources.list.d/debian.sources
    mkdir -p "$root/host" "$root/etc/multusd" "$root/var/log/multusd" "$root/var/lib/multusd"
    echo lab > "$root/etc/hostname"
    echo '/dev/vda / ext4 noatime 0 1' > "$root/etc/fstab"
    echo uninitialized > "$root/etc/machine-id"
    /usr/bin/install -m 755 "$here/guest/init" "$root/usr/local/sbin/lab-init"
    /usr/bin/install -m 644 "$here/guest/lab.service" "$root/etc/systemd/system/lab.service"
    chroot "$root" systemctl enable lab.service
    chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer \
        systemd-networkd-wait-online.service getty@tty1.service serial-getty@ttyS0.service
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
    cp -L "$root"/boot/vmlinuz-*-rt-amd64 "$out/vmlinuz"
    cp -L "$root"/boot/initrd.img-*-rt-amd64 "$out/initrd"
    ls "$root/lib/modules" > "$out/release"
    rm -f "$out/disk"
    truncate -s 3G "$out/disk"
    mke2fs -q -t ext4 -E lazy_itable_init=1,nodiscard -d "$root" "$out/disk"
    rm -rf --one-file-system "$root"
    done_now "$out/disk"
}

# modules NAME: the kernel modules for that image, in $lab/NAME/modules. Debian's kernels have no gpio-sim, but its source.
modules() {
    local out=$lab/$1/modules release build=$lab/modules-build
    release=$(cat "$lab/$1/release")
    done_before "$out" "$release" "$(declare -f modules)" "$(cat "$here"/modules/*)" && return 0
    install kmod make gcc "linux-source-${release%.*}" "linux-headers-$release"
    rm -rf "$build" "$out"
    mkdir -p "$build" "$out"
    tar -C "$build" --strip-components=1 -xf "/usr/src/linux-source-${release%.*}".tar.* --wildcards \
        '*/drivers/gpio/gpio-sim.c' '*/drivers/gpio/gpiolib.h' '*/kernel/irq/irq_sim.c'
    mv "$build"/drivers/gpio/gpio-sim.c "$build/sim_main.c"
    mv "$build"/drivers/gpio/gpiolib.h "$build"/kernel/irq/irq_sim.c "$build"
    # irq_to_desc() is not for modules; this does the same.
    sed -i 's/handle_simple_irq(irq_to_desc(\(.*\)));/generic_handle_irq_safe(\1);/' "$build/irq_sim.c"
    cp "$here"/modules/{Kbuild,*.c} "$build"
    make -s -C "/lib/modules/$release/build" M="$build" modules
    cp "$build"/*.ko "$out"
    done_now "$out"
}

# programs: what is tested, for this machine and the images alike, into $lab/share/bin.
programs() {
    (cd "$root" && cargo build --release --locked "${crates[@]}" -p multus-lan)
    mkdir -p "$lab/share/bin"
    local target
    target=$(cd "$root" && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    cp "${binaries[@]/#/$target/release/}" "$target/release/multus-lan" "$lab/share/bin"
}
# share: what the machines see as /host.
share() {
    mkdir -p "$lab/share"/{guest,modules,python}
    rm -rf "$lab/share"/{guest,modules,python}/*
    cp "$here"/guest/* "$root/scripts/systemd/multusd.service" "$lab/share/guest"
    [ ! -d "$lab/x86/modules" ] || cp "$lab"/x86/modules/*.ko "$lab/share/modules"
    cp -r "$root/ipc/python/multus" "$lab/share/python"
}

crates=(-p multusd -p multus-io -p multus-template)
binaries=(multusd multusctl multus-io multus-template)

# arm64_apt ARGUMENT...: apt-get for packages of arm64, which are only unpacked: this machine stays one of amd64 alone.
arm64_apt() {
    mkdir -p "$lab/apt/lists/partial" "$lab/apt/cache/archives/partial"
    : > "$lab/apt/status"
    retry apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$lab/apt" \
        -o Dir::State::status="$lab/apt/status" -o Dir::Cache="$lab/apt/cache" -o APT::Sandbox::User=root \
        -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/debian.sources -o Dir::Etc::sourceparts=- "$@"
}

# pi_system: Debian's kernel for arm64, busybox, and the Rust standard library for it, unpacked in $lab/pi.
pi_system() {
    local out=$lab/pi kernel version
    install rustc-web cargo-web gcc-aarch64-linux-gnu libc6-dev-arm64-cross cpio kmod
    version=$(dpkg-query -W -f '${Version}' rustc-web)
    done_before "$out/vmlinuz" "$version" "$(declare -f pi_system)" && return 0
    rm -rf "$out"
    mkdir -p "$out/packages" "$out/root"
    arm64_apt update
    kernel=$(arm64_apt install --dry-run --no-install-recommends linux-image-arm64 |
        sed -n 's/^Inst \(linux-image-6[^ ]*\) .*/\1/p')
    (cd "$out/packages" && arm64_apt download "$kernel" busybox-static "libstd-rust-web-dev=$version")
    for package in "$out"/packages/*.deb; do dpkg -x "$package" "$out/root"; done
    rm -r "$out/packages"
    depmod -b "$out/root" "$(ls "$out/root/lib/modules")"
    cp "$out"/root/usr/lib/linux-image-*/broadcom/bcm2837-rpi-3-b.dtb "$out"
    cp "$out"/root/boot/vmlinuz-* "$out/vmlinuz"
    done_now "$out/vmlinuz"
}

# pi_programs: the same programs for aarch64, each one file that needs no library, in $lab/pi/bin.
pi_programs() {
    local target=aarch64-unknown-linux-gnu
    (
        cd "$root"
        export RUSTC=/usr/bin/rustc CARGO_TARGET_DIR=$lab/pi-target CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
        export RUSTFLAGS="-C target-feature=+crt-static --sysroot=$lab/pi/root/usr"
        /usr/bin/cargo build --release --locked --target $target "${crates[@]}"
    )
    mkdir -p "$lab/pi/bin"
    cp "${binaries[@]/#/$lab/pi-target/$target/release/}" "$lab/pi/bin"
}
