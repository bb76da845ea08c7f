//! `cargo xtask test`: all tests, each where it belongs, none lost.

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::cache::Cache;
use crate::libtest::{self, Lines, THREADS, Verdict, Watch};
use crate::lines::Line;
use crate::progress::Step;
use crate::suite::{self, Suite, Suites};
use crate::sysroot::GUEST;
use crate::tree::Root;
use crate::vm::Machine;
use crate::{guest, host, process, sysroot};

/// The longest that one program's tests may take on the host.
const HOST_LIMIT: Duration = Duration::from_secs(15 * 60);

/// What one virtual machine is to do.
#[derive(Debug)]
enum Work {
    /// A part of the first line's tests.
    First(Suites),
    /// What runs on another line.
    Other(&'static Line, Result<Machine>),
}

/// Runs the tests that `filter` keeps, on the first line all, on the others a part, and ends with the closing line.
/// The programs are built once, for all lines.
pub(crate) fn run(
    cache: &Cache,
    lines: &[&'static Line],
    filter: Option<&str>,
) -> Result<ExitCode> {
    let Some((first, others)) = lines.split_first() else { bail!("no line to test on") };
    let machine = Machine::prepare(cache, first)?;
    let suites = suite::collect(&machine.root, filter)?;
    let mut verdicts = Vec::new();
    let guests = host::guests();
    let (sender, work) = mpsc::channel();
    // A few tests aren't worth a second boot.
    for part in suites.parts(if filter.is_some() { 1 } else { guests }) {
        sender.send(Work::First(part))?;
    }
    let work = Mutex::new(work);
    let in_guests = || {
        let mut verdicts = Vec::new();
        loop {
            let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let (line, run) = match next {
                Ok(Work::First(part)) => (*first, guest::run(cache, first, &machine, &part)),
                Ok(Work::Other(line, machine)) => (line, on_other(cache, line, machine, &suites)),
                Err(_) => return verdicts,
            };
            match run {
                Ok(of_line) => verdicts.extend(of_line),
                // What has been tested elsewhere is told all the same.
                Err(error) => verdicts.push(unable(line, "its tests could not be run", &error)),
            }
        }
    };
    std::thread::scope(|scope| {
        // The tree of a line may take long to build, which goes on beside the tests.
        scope.spawn(move || {
            others
                .iter()
                .all(|line| sender.send(Work::Other(line, Machine::prepare(cache, line))).is_ok())
        });
        for suite in &suites.host {
            verdicts.push(on_host(&machine.root, "host", suite)?);
        }
        verdicts.push(doctests(&machine.root, filter)?);
        let guests: Vec<_> = (0..guests).map(|_| scope.spawn(in_guests)).collect();
        for guest in guests {
            verdicts.extend(guest.join().map_err(|_| anyhow!("a thread of the tests"))?);
        }
        Ok::<_, anyhow::Error>(())
    })?;
    if filter.is_none() {
        verdicts.extend(lost(&suites));
        if !others.is_empty() {
            verdicts.extend(lost_elsewhere(&suites));
        }
    }
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
        Err(error) => return Ok(vec![unable(line, "the line is missing", &error)]),
    };
    println!("OpenZFS {} on Linux {}", machine.root.zfs, machine.root.kernel);
    let part = suites.on_other_lines();
    let mut verdicts = Vec::new();
    for suite in &part.host {
        verdicts.push(on_host(&machine.root, line.zfs, suite)?);
    }
    verdicts.extend(guest::run(cache, line, &machine, &part)?);
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

pub(crate) fn failure(text: &str) -> Verdict {
    Verdict { failed: vec![text.to_owned()], ..Verdict::default() }
}

/// Says why something of a line could not be done, which is a failure.
pub(crate) fn unable(line: &Line, what: &str, error: &Error) -> Verdict {
    eprintln!("error: {error:#}");
    failure(&format!("{}   {what}", line.zfs))
}

/// The arguments that run exactly the tests `names`.
pub(crate) fn exactly(names: &[String]) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
