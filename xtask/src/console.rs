//! The guest's kernel console: its last lines, and whether the kernel failed.

use std::collections::VecDeque;

/// How many lines are kept.
const KEPT: usize = 200;

/// What a kernel or ZFS prints when it fails; a job that "passed" with one of these did not pass.
const FAILURES: &[&str] = &[
    "Kernel panic",
    "kernel BUG",
    "BUG: ",
    "Oops: ",
    "general protection fault",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    // Also VERIFY0(, VERIFY3U( and so on.
    "VERIFY",
    "PANIC at ",
    "PANIC: ",
    "Out of memory: Killed",
];

/// The console's end, and the first line that tells of a failure.
#[derive(Debug, Default)]
pub(crate) struct Console {
    partial: Vec<u8>,
    lines: VecDeque<String>,
    failure: Option<String>,
}

impl Console {
    /// Takes what the console printed next.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                _ => self.partial.push(byte),
            }
        }
    }

    /// The line that told of a failure, if one did.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The last `count` lines.
    pub(crate) fn tail(&self, count: usize) -> String {
        let partial = String::from_utf8_lossy(&self.partial);
        let lines =
            self.lines.iter().map(String::as_str).skip(self.lines.len().saturating_sub(count));
        lines.chain([&*partial]).map(|line| format!("  | {line}\n")).collect()
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        if self.failure.is_none() && FAILURES.iter().any(|sign| line.contains(sign)) {
            self.failure = Some(line.clone());
        }
        self.lines.push_back(line);
        if self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Option<String> {
        let mut console = Console::default();
        console.feed(text.as_bytes());
        console.failure().map(str::to_owned)
    }

    #[test]
    fn failures_are_seen() {
        for line in [
            "[    9.1] sysrq: Trigger a crash\r\n[    9.2] Kernel panic - not syncing: sysrq triggered",
            "[   12.0] VERIFY3(0 == dmu_object_claim()) failed (0 == 5)",
            "[   12.0] VERIFY0(zap_add()) failed (0 == 17)",
            "[   12.0] PANIC at dsl_dir.c:1060:dsl_dir_create_sync()",
            "[   12.0] PANIC: zfs: removing nonexistent segment",
            "[  242.7] INFO: task txg_sync:512 blocked for more than 120 seconds.",
            "[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "[    1.0] Oops: general protection fault, probably for non-canonical address",
            "[   48.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [z_wr_iss:300]",
        ] {
            assert!(failure(&format!("{line}\r\n")).is_some(), "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_not_failures() {
        let text = "[    0.0] Linux version 6.12\r\n[    3.1] zfs: module license 'CDDL' taints kernel.\r\n\
                    [    3.2] ZFS: Loaded module v2.3.9-1, ZFS pool version 5000\r\n";
        assert_eq!(failure(text), None);
    }

    #[test]
    fn a_line_may_come_in_pieces_and_the_end_is_kept() {
        let mut console = Console::default();
        for index in 0..300 {
            console.feed(format!("line {index}\r\n").as_bytes());
        }
        console.feed(b"Kernel pa");
        assert_eq!(console.failure(), None);
        assert!(console.tail(2).ends_with("  | line 299\n  | Kernel pa\n"));
        console.feed(b"nic\n");
        assert_eq!(console.failure(), Some("Kernel panic"));
        assert_eq!(console.lines.len(), KEPT);
    }
}
