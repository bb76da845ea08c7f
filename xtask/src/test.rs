//! `cargo xtask test`: all tests, each where it belongs, none lost.

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::cache::Cache;
use crate::command::{SILENCE, pass_on};
use crate::libtest::{self, Lines, THREADS, Verdict, Watch};
use crate::lines::Line;
use crate::payload::{Payload, quote};
use crate::progress::Step;
use crate::suite::{self, Suite, Suites};
use crate::sysroot::GUEST;
use crate::tree::Root;
use crate::vm::{Job, Machine, Stream};
use crate::{process, sysroot};

/// The longest that one program's tests may take on the host.
const HOST_LIMIT: Duration = Duration::from_secs(15 * 60);
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

/// Runs the tests that `filter` keeps, on the first line all, on the others a part, and ends with the closing line.
/// The programs are built once, for all lines.
pub(crate) fn run(cache: &Cache, lines: &[&Line], filter: Option<&str>) -> Result<ExitCode> {
    let Some((first, others)) = lines.split_first() else { bail!("no line to test on") };
    let machine = Machine::prepare(cache, first)?;
    let suites = suite::collect(&machine.root, filter)?;
    let mut verdicts = Vec::new();
    std::thread::scope(|scope| {
        // The first boot of a line may take long to build, which goes on beside the tests.
        let prepared = scope
            .spawn(|| others.iter().map(|line| Machine::prepare(cache, line)).collect::<Vec<_>>());
        for suite in &suites.host {
            verdicts.push(on_host(&machine.root, "host", suite)?);
        }
        verdicts.push(doctests(&machine.root, filter)?);
        verdicts.extend(in_vm(cache, first, &machine, &suites)?);
        if filter.is_none() {
            verdicts.extend(lost(&suites));
            if !others.is_empty() {
                verdicts.extend(lost_elsewhere(&suites));
            }
        }
        let prepared = prepared.join().map_err(|_| anyhow!("preparing the other lines"))?;
        for (line, machine) in others.iter().zip(prepared) {
            verdicts.extend(on_other(cache, line, machine, &suites)?);
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(close(verdicts))
}

/// How the tests of what kernel and module do have ended on a line, and what that is.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) zfs: String,
    pub(crate) kernel: String,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

/// Runs on one line what `run` does on those after the first.
pub(crate) fn of_line(cache: &Cache, line: &Line) -> Result<Tally> {
    let machine = Machine::prepare(cache, line)?;
    let (zfs, kernel) = (machine.root.zfs.clone(), machine.root.kernel.clone());
    let suites = suite::collect(&machine.root, None)?;
    let mut verdicts = on_other(cache, line, Ok(machine), &suites)?;
    verdicts.extend(lost_elsewhere(&suites));
    let tally = Tally {
        zfs,
        kernel,
        passed: verdicts.iter().map(|verdict| verdict.passed).sum(),
        failed: verdicts.iter().map(|verdict| verdict.failed.len()).sum(),
    };
    close(verdicts);
    Ok(tally)
}

/// On a line that isn't the first one: what depends on kernel and module most, and the headers.
fn on_other(
    cache: &Cache,
    line: &Line,
    machine: Result<Machine>,
    suites: &Suites,
) -> Result<Vec<Verdict>> {
    let machine = match machine {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(vec![failure(&format!("{}   the line is missing", line.zfs))]);
        }
    };
    println!("OpenZFS {} on Linux {}", machine.root.zfs, machine.root.kernel);
    let part = suites.on_other_lines();
    let mut verdicts = Vec::new();
    for suite in &part.host {
        verdicts.push(on_host(&machine.root, line.zfs, suite)?);
    }
    verdicts.extend(in_vm(cache, line, &machine, &part)?);
    Ok(verdicts)
}

/// Test programs and places without any test: where all tests should run, tests have been lost.
fn lost(suites: &Suites) -> Vec<Verdict> {
    let mut lost: Vec<_> =
        suites.empty.iter().map(|name| failure(&format!("{name} (lists no test)"))).collect();
    if suites.vm.is_empty() {
        lost.push(failure("vm    no test ran in the virtual machine"));
    }
    lost
}

/// The same for what runs on other lines than the first.
fn lost_elsewhere(suites: &Suites) -> impl Iterator<Item = Verdict> {
    let lost = suites.lost_on_other_lines().into_iter();
    lost.map(|core| failure(&format!("{core} (names no test)")))
}

/// Prints what failed and the closing line.
fn close(mut verdicts: Vec<Verdict>) -> ExitCode {
    if verdicts.iter().all(|verdict| verdict.passed == 0 && verdict.failed.is_empty()) {
        verdicts.push(failure("no test ran at all"));
    }
    for verdict in verdicts.iter().filter(|verdict| !verdict.details.is_empty()) {
        println!("\n{}", verdict.details);
    }
    let failed: Vec<_> = verdicts.iter().flat_map(|verdict| &verdict.failed).collect();
    if !failed.is_empty() {
        println!("\nfailed:");
    }
    for name in &failed {
        println!("  {name}");
    }
    let passed: usize = verdicts.iter().map(|verdict| verdict.passed).sum();
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn failure(text: &str) -> Verdict {
    Verdict { failed: vec![text.to_owned()], ..Verdict::default() }
}

/// The arguments that run exactly the tests `names`.
fn exactly(names: &[String]) -> Vec<String> {
    let mut arguments = vec![format!("--test-threads={THREADS}"), "--exact".to_owned()];
    arguments.extend_from_slice(names);
    arguments
}

fn on_host(root: &Root, label: &str, suite: &Suite) -> Result<Verdict> {
    let mut command = if suite.for_guest {
        sysroot::on_host(root, &suite.program)
    } else {
        process::bound(&suite.program)
    };
    command.args(exactly(&suite.names));
    watch(command, Watch::new(label, &suite.names))
}

fn doctests(root: &Root, filter: Option<&str>) -> Result<Verdict> {
    let cargo = || {
        let mut command = sysroot::guest_cargo(root, "test", GUEST);
        command.args(["--quiet", "--doc", "--"]);
        command
    };
    let step = Step::begin_quiet("listing the documentation's tests");
    let text = process::output(cargo().args(["--list", "--format", "terse"]))?;
    step.done();
    let names: Vec<_> = libtest::listed(&text)
        .into_iter()
        .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
        .collect();
    if names.is_empty() {
        return Ok(match filter {
            Some(_) => Verdict::default(),
            None => failure("doc   no test is listed"),
        });
    }
    let mut command = cargo();
    // --quiet of cargo asks for dots instead of lines; rustdoc splits arguments at spaces, which
    // the names have, so that only a filter can be passed on.
    command.args(["--format", "pretty"]).args(filter);
    watch(command, Watch::new("doc", &names))
}

/// Runs a test program here, within its limit.
fn watch(mut command: Command, mut watch: Watch) -> Result<Verdict> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child =
        command.spawn().with_context(|| format!("starting {}", process::name(&command)))?;
    let Some(mut stdout) = child.stdout.take() else { bail!("no output to read") };
    let (sender, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + HOST_LIMIT;
    let mut lines = Lines::default();
    loop {
        match pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => {
                for shown in lines.feed(&bytes).iter().filter_map(|line| watch.line(line)) {
                    println!("{shown}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                process::kill(&mut child);
                println!("{}: took too long and was killed", process::name(&command));
                watch.end(&lines);
                return Ok(watch.verdict(None));
            }
        }
    }
    watch.end(&lines);
    let status = process::wait(&mut child, deadline, || {})?;
    Ok(watch.verdict(status.code()))
}

/// Runs all tests that need ZFS in one boot, one program after the other.
fn in_vm(cache: &Cache, line: &Line, machine: &Machine, suites: &Suites) -> Result<Vec<Verdict>> {
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
        Err(error) => {
            eprintln!("error: {error:#}");
            verdicts.push(failure(&format!("{}   the virtual machine itself", line.zfs)));
        }
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

    #[test]
    fn lost_tests_are_failures() {
        let suites = Suites { empty: vec!["abi".to_owned()], ..Suites::default() };
        let names: Vec<_> = lost(&suites).into_iter().flat_map(|verdict| verdict.failed).collect();
        assert_eq!(names, ["abi (lists no test)", "vm    no test ran in the virtual machine"]);
    }

    #[test]
    fn nothing_run_is_a_failure() {
        assert_eq!(
            format!("{:?}", close(vec![Verdict::default()])),
            format!("{:?}", ExitCode::FAILURE)
        );
    }
}
