//! Tests in one virtual machine: what is brought into it, and which program says what.

use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::command::{SILENCE, pass_on};
use crate::libtest::{Lines, Verdict, Watch};
use crate::lines::Line;
use crate::payload::{Payload, quote};
use crate::suite::Suites;
use crate::test::{exactly, failure, unable};
use crate::vm::{Job, Machine, Stream};

/// The longest that all tests in the virtual machine may take.
const VM_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);
/// Shell for the guest: says now and then that it is still there, which a long test doesn't.
const ALIVE: &str = r#"{
    trap 'kill $!' TERM
    while :; do
        sleep 60 & wait $!
        echo "    still testing ($SECONDS s)" >&2
    done
} &
alive=$!
"#;
/// The start of a line by which the guest's script tells which program runs.
const MARK: &str = "@@xtask";

/// Runs all tests that need ZFS in one boot, one program after the other.
pub(crate) fn run(
    cache: &Cache,
    line: &Line,
    machine: &Machine,
    suites: &Suites,
) -> Result<Vec<Verdict>> {
    if suites.vm.is_empty() {
        return Ok(Vec::new());
    }
    let payload = Payload::new(cache, &script(suites))?;
    for program in suites.vm.iter().map(|suite| &suite.program).chain(&suites.programs) {
        payload.copy(program, &guest_path(program))?;
    }
    let mut watches: Vec<_> =
        suites.vm.iter().map(|suite| (Watch::new(line.zfs, &suite.names), None)).collect();
    let mut current = None;
    let mut lines = Lines::default();
    let job = Job { disks: &[], limit: Some(VM_LIMIT), silence: Some(SILENCE), interactive: false };
    let outcome = machine.run(&payload, &job, &mut |stream, bytes| {
        if stream == Stream::Err {
            return pass_on(stream, bytes);
        }
        for line in lines.feed(bytes) {
            if let Some(mark) = Mark::read(&line) {
                current = mark.end.is_none().then_some(mark.suite);
                if let Some((watch, status)) = watches.get_mut(mark.suite) {
                    watch.start();
                    *status = mark.end;
                }
            } else if let Some((watch, _)) = current.and_then(|index| watches.get_mut(index)) {
                if let Some(shown) = watch.line(&line) {
                    println!("{shown}");
                }
            } else {
                println!("{line}");
            }
        }
        Ok(())
    });
    if let Some((watch, _)) = current.and_then(|index| watches.get_mut(index)) {
        watch.end(&lines);
    }
    let mut verdicts: Vec<_> =
        watches.into_iter().map(|(watch, status)| watch.verdict(status)).collect();
    match outcome {
        Ok(0) => {}
        Ok(status) => {
            verdicts.push(failure(&format!("{}   the job (exit status {status})", line.zfs)));
        }
        Err(error) => verdicts.push(unable(line, "the virtual machine itself", &error)),
    }
    Ok(verdicts)
}

/// Where a program of the host is in the payload.
fn guest_path(program: &std::path::Path) -> String {
    format!("bin/{}", program.file_name().unwrap_or_default().to_string_lossy())
}

/// Shell for the guest: runs the programs in order, telling which and how it ended.
fn script(suites: &Suites) -> String {
    let mut script = "cd\n".to_owned();
    // How much the tests are to do.
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("ZFS_TXN_")) {
        script += &format!("export {name}={}\n", quote([&*value]));
    }
    script += ALIVE;
    for program in &suites.programs {
        // Integration tests know the package's programs by the path that cargo gave them.
        let (path, guest) = (program.to_string_lossy(), guest_path(program));
        let dir = program.parent().map(|dir| dir.to_string_lossy()).unwrap_or_default();
        script += &format!(
            "mkdir -p {0} && ln -s /payload/{guest} {1}\n",
            quote([&*dir]),
            quote([&*path])
        );
    }
    for (index, suite) in suites.vm.iter().enumerate() {
        let program = format!("/payload/{}", guest_path(&suite.program));
        let arguments = exactly(&suite.names);
        let words = std::iter::once(&*program).chain(arguments.iter().map(String::as_str));
        script += &format!("echo '{MARK} begin {index}'\n{}\n", quote(words));
        script += &format!("printf '\\n{MARK} end {index} %d\\n' $?\n");
    }
    script + "kill $alive\nexit 0\n"
}

/// A line by which the guest's script tells which program runs.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    suite: usize,
    end: Option<i32>,
}

impl Mark {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(MARK)?.split_whitespace();
        let kind = words.next()?;
        let suite = words.next()?.parse().ok()?;
        match kind {
            "begin" => Some(Self { suite, end: None }),
            "end" => Some(Self { suite, end: Some(words.next()?.parse().ok()?) }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read() {
        assert_eq!(Mark::read("@@xtask begin 1"), Some(Mark { suite: 1, end: None }));
        assert_eq!(Mark::read("@@xtask end 0 101"), Some(Mark { suite: 0, end: Some(101) }));
        assert_eq!(Mark::read("test a ... ok"), None);
    }
}
