//! The test programs: which there are, what they list, and where each test runs.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::libtest;
use crate::process;
use crate::progress::Step;
use crate::sysroot::{self, Artefact};
use crate::tree::Root;

/// A path segment of unit tests that need ZFS.
const NEEDS_ZFS: &str = "on_zfs";
/// The integration test that needs ZFS as a whole.
const ZFS_SUITE: &str = "zfs";

/// The integration test that asks a line's headers.
const HEADERS_SUITE: &str = "abi";

/// What runs on lines that aren't tested in full, by the beginnings of names: what the kernel and the module do, and
/// not the campaigns, which try again and again what is the same on all lines.
const CORE: &[&str] = &[
    "capabilities::",
    "commit::",
    "container::",
    "endurance::a_target_is_swapped",
    "fence::",
    "ffi::",
    "held::",
    "in_place::",
    "kernel::on_zfs::",
    "mapped::",
    "mount::",
    "mounts::",
    "ownership::",
    "pages::",
    "recovery::",
    "resume::",
    "rollback::",
    "sent::",
    "suspended::",
    "volumes::",
];

/// Tests of one program that run in one place.
#[derive(Debug, Clone)]
pub(crate) struct Suite {
    /// The program.
    pub(crate) program: PathBuf,
    /// The target's name.
    target: String,
    /// Whether it is built for the guest.
    pub(crate) for_guest: bool,
    /// The tests to run.
    pub(crate) names: Vec<String>,
}

/// All test programs, by where their tests run.
#[derive(Debug, Default)]
pub(crate) struct Suites {
    /// On this machine.
    pub(crate) host: Vec<Suite>,
    /// In the virtual machine.
    pub(crate) vm: Vec<Suite>,
    /// Programs of the package, which integration tests may start.
    pub(crate) programs: Vec<PathBuf>,
    /// The names of test programs that list no test at all.
    pub(crate) empty: Vec<String>,
}

impl Suites {
    /// What runs in virtual machines, in parts that take about as long, for as many machines.
    pub(crate) fn parts(&self, count: usize) -> Vec<Self> {
        let part = |number: usize| {
            let some = |suite: &Suite| {
                let names = suite.names.iter().skip(number).step_by(count).cloned().collect();
                Suite { names, ..suite.clone() }
            };
            Self {
                vm: self.vm.iter().map(some).filter(|suite| !suite.names.is_empty()).collect(),
                programs: self.programs.clone(),
                ..Self::default()
            }
        };
        (0..count).map(part).collect()
    }

    /// Which of what runs on other lines is nowhere, so that nobody would miss it.
    pub(crate) fn lost_on_other_lines(&self) -> Vec<&'static str> {
        let is_there = |core: &str| {
            self.vm.iter().flat_map(|suite| &suite.names).any(|name| name.starts_with(core))
        };
        CORE.iter().copied().filter(|core| !is_there(core)).collect()
    }

    /// What runs on lines that aren't tested in full.
    pub(crate) fn on_other_lines(&self) -> Self {
        let short = |suite: &Suite| {
            let mut suite = suite.clone();
            suite.names.retain(|name| CORE.iter().any(|core| name.starts_with(core)));
            (!suite.names.is_empty()).then_some(suite)
        };
        let host = self.host.iter().filter(|suite| suite.target == HEADERS_SUITE);
        Self {
            host: host.cloned().collect(),
            vm: self.vm.iter().filter_map(short).collect(),
            programs: self.programs.clone(),
            empty: Vec::new(),
        }
    }
}

/// Builds all test programs and sorts out the tests that `filter` keeps.
pub(crate) fn collect(root: &Root, filter: Option<&str>) -> Result<Suites> {
    let step = Step::begin_quiet("building the tests");
    let ours = sysroot::build(sysroot::guest_cargo(root, "test", sysroot::GUEST).arg("--no-run"))?;
    let tools = sysroot::build(sysroot::cargo().args(["test", "--no-run", "--package", "xtask"]))?;
    step.done();
    let mut suites = Suites::default();
    for (artefact, for_guest) in
        ours.iter().map(|one| (one, true)).chain(tools.iter().map(|one| (one, false)))
    {
        let program = artefact.executable.clone();
        if !artefact.is_test {
            if artefact.kind == "bin" && for_guest {
                suites.programs.push(program);
            }
            continue;
        }
        let listed = list(root, artefact, for_guest)?;
        if listed.is_empty() {
            suites.empty.push(artefact.target.clone());
        }
        let (vm, host) = listed
            .into_iter()
            .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
            .partition::<Vec<_>, _>(|name| for_guest && needs_zfs(artefact, name));
        for (names, place) in [(vm, &mut suites.vm), (host, &mut suites.host)] {
            if !names.is_empty() {
                let (program, target) = (program.clone(), artefact.target.clone());
                place.push(Suite { program, target, for_guest, names });
            }
        }
    }
    Ok(suites)
}

/// Whether a test of `artefact` runs in the virtual machine.
fn needs_zfs(artefact: &Artefact, name: &str) -> bool {
    (artefact.kind == "test" && artefact.target == ZFS_SUITE)
        || name.split("::").any(|segment| segment == NEEDS_ZFS)
}

fn list(root: &Root, artefact: &Artefact, for_guest: bool) -> Result<Vec<String>> {
    let mut command = if for_guest {
        sysroot::on_host(root, &artefact.executable)
    } else {
        process::bound(&artefact.executable)
    };
    let text = process::output(command.args(["--list", "--format", "terse"]))
        .with_context(|| format!("listing the tests of {}", artefact.target))?;
    Ok(libtest::listed(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(target: &str, names: &[&str]) -> Suite {
        Suite {
            program: PathBuf::new(),
            target: target.to_owned(),
            for_guest: true,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn on_other_lines_runs_what_is_named_and_what_is_nowhere_is_told() {
        let all = Suites {
            host: vec![suite("abi", &["sizes"]), suite("zfs_txn", &["name::parse"])],
            vm: vec![
                suite("zfs", &["commit::a", "endurance::b", "volumes::c"]),
                suite("zfs_txn", &["txn::killed::on_zfs::d"]),
            ],
            ..Suites::default()
        };
        let part = all.on_other_lines();
        assert_eq!((part.host.len(), part.vm.len()), (1, 1));
        assert_eq!(part.vm[0].names, ["commit::a", "volumes::c"]);
        let lost = all.lost_on_other_lines();
        assert!(lost.contains(&"mounts::") && !lost.contains(&"volumes::"));
        assert_eq!(lost.len(), CORE.len() - 2);
    }

    #[test]
    fn each_test_is_in_one_part() {
        let all = Suites {
            host: vec![suite("abi", &["host"])],
            vm: vec![suite("zfs", &["a", "b", "c"]), suite("zfs", &["d"])],
            ..Suites::default()
        };
        let names = |part: &Suites| -> Vec<_> {
            part.vm.iter().flat_map(|suite| suite.names.clone()).collect()
        };
        let parts: Vec<_> = all.parts(2).iter().map(names).collect();
        assert_eq!(parts, [vec!["a", "c", "d"], vec!["b"]]);
        assert!(all.parts(2).iter().all(|part| part.host.is_empty()));
        assert_eq!(all.parts(1).iter().map(names).collect::<Vec<_>>(), [["a", "b", "c", "d"]]);
    }

    #[test]
    fn a_test_runs_where_its_name_says() {
        let artefact = |kind: &str, target: &str| Artefact {
            target: target.to_owned(),
            kind: kind.to_owned(),
            executable: PathBuf::new(),
            is_test: true,
        };
        let lib = artefact("lib", "zfs_txn");
        assert!(needs_zfs(&lib, "txn::on_zfs::commit"));
        assert!(!needs_zfs(&lib, "txn::on_zfs_name::parse"));
        assert!(!needs_zfs(&lib, "zfs::tests::parse"));
        assert!(needs_zfs(&artefact("test", "zfs"), "commit"));
        assert!(!needs_zfs(&artefact("test", "abi"), "sizes"));
    }
}
