//! The command line of QEMU.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host;
use crate::image::Boot;
use crate::process;
use crate::tree::Tools;

/// Older ones corrupt the guest's kernel under emulation.
const OLDEST: u32 = 10;

/// The program, inside its tree.
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";

/// A failing kernel stops at once, so that the run ends with the reason as the last console lines.
/// Watchdogs are slow because an emulated CPU can stand still for many seconds; so the timer isn't held to ten ticks at
/// boot either (`check_timer`), where the kernel panics.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic softlockup_panic=1 \
    sysctl.kernel.hung_task_panic=1 sysctl.kernel.watchdog_thresh=60 no_timer_check spl.spl_panic_halt=1 \
    mitigations=off";

/// The two-way channels between host and guest: socket name and device.
pub(crate) const CHANNELS: &[(&str, &str)] = &[
    ("console", "isa-serial"),
    ("control", "virtserialport,bus=ports.0,nr=1,name=control"),
    ("stdout", "virtserialport,bus=ports.0,nr=2,name=stdout"),
    ("stderr", "virtserialport,bus=ports.0,nr=3,name=stderr"),
    ("terminal", "virtconsole,bus=ports.0,nr=0"),
];

/// Fails unless the tree's QEMU is recent enough.
pub(crate) fn check_version(tools: &Tools) -> Result<()> {
    let text = process::output(tools.command(PROGRAM).arg("--version"))?;
    let major = major(&text).with_context(|| format!("no version in {text:?}"))?;
    if major < OLDEST {
        bail!("QEMU {major} is too old: {OLDEST} or newer is needed");
    }
    Ok(())
}

fn major(text: &str) -> Option<u32> {
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// A disk whose writes and flushes are logged, in the format of the kernel's dm-log-writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedDisk<'a> {
    /// The raw image, whose content is of no use after a power cut: the log is.
    pub(crate) image: &'a Path,
    /// The log, an empty file.
    pub(crate) log: &'a Path,
}

/// QEMU with the sockets of [`CHANNELS`] in its working directory, `dir`.
pub(crate) fn command(
    tools: &Tools,
    boot: &Boot,
    dir: &Path,
    payload: &Path,
    disks: &[PathBuf],
    logged: Option<LoggedDisk<'_>>,
) -> Command {
    let mut command = tools.command(PROGRAM);
    command.current_dir(dir);
    for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        command.arg("-L").arg(tools.dir.join(firmware));
    }
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-machine", "pc", "-smp", "2", "-m", "4G"]);
    if host::has_kvm() {
        command.args(["-accel", "kvm", "-cpu", "host"]);
    } else {
        // ZFS measures its checksums with every instruction set when loaded: emulated AVX is slow.
        command.args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem"]);
    }
    command.arg("-kernel").arg(&boot.kernel).arg("-initrd").arg(&boot.initramfs);
    command.args(["-append", KERNEL_ARGUMENTS]);
    let mut drive = |file: &Path, options: &str| {
        let file = file.to_string_lossy().replace(',', ",,");
        command.arg("-drive").arg(format!("file={file},format=raw,if=virtio,{options}"));
    };
    drive(&boot.disk, "snapshot=on,cache=unsafe");
    drive(payload, "cache=unsafe");
    for disk in disks {
        // What the guest was told is on disk survives the end of QEMU.
        drive(disk, "cache=writethrough");
    }
    if let Some(disk) = logged {
        attach_logged(&mut command, disk);
    }
    command.args(["-device", "virtio-serial-pci,id=ports,max_ports=8"]);
    for (name, device) in CHANNELS {
        command.arg("-chardev").arg(format!("socket,id={name},path={name}"));
        command.arg("-device").arg(format!("{device},chardev={name}"));
    }
    command
}

/// The guest sees a volatile write cache, so it flushes; each write and each flush is in the log
/// before the guest is told that it is done. The files themselves need no flush: the host stays up.
fn attach_logged(command: &mut Command, disk: LoggedDisk<'_>) {
    let file = |path: &Path| path.to_string_lossy().replace(',', ",,");
    for (node, path) in [("image", disk.image), ("log", disk.log)] {
        let path = file(path);
        command.arg("-blockdev").arg(format!(
            "driver=file,node-name=logged-{node},filename={path},cache.no-flush=on,aio=threads"
        ));
    }
    command.args([
        "-blockdev",
        "driver=blklogwrites,node-name=logged,file=logged-image,log=logged-log",
    ]);
    // Discards may lose what was flushed, so there are none. Named after the other disks.
    command
        .arg("-device")
        .arg("virtio-blk-pci,drive=logged,write-cache=on,discard=off,write-zeroes=off,addr=0x1e");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n"), Some(10));
        assert_eq!(major("QEMU emulator version 7.2.17\n"), Some(7));
        assert_eq!(major("qemu: error"), None);
    }
}
