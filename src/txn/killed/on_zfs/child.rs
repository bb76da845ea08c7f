//! The process that dies: an engine that counts effects and kills its process after one of them.

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};

use rustix::process::{Signal, getpid, kill_process};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::By;
use crate::engine::{Engine, Fault};
use crate::errno::Errno;
use crate::error::{BeginError, CommitError};
use crate::kernel::Kernel;
use crate::kernel::plain::observe;
use crate::name::DatasetName;
use crate::ownership::Ownership;
use crate::receipt::{OnConflict, Strategy};
use crate::test_write::write;
use crate::txn::Transaction;
use crate::txn::forwarding::forward_to_kernel;
use crate::zfs::{TransactionBuilder, Zfs};

/// Tells a process of this binary that it is a child, and what to do.
const VARIABLE: &str = "ZFS_TXN_KILLED";
/// Begins what a child says of the effects in a case.
const SAID: &str = "EFFECTS ";
/// The last part of the name of a target that is changed in place.
pub(super) const IN_PLACE: &str = "in-place";
/// What a transaction writes into the workspace.
pub(super) const NEW: &str = "new";
/// What somebody else writes into the target.
pub(super) const OTHERS: &str = "somebody else's";
/// The name of the snapshots that somebody else takes.
pub(super) const AUTO: &str = "auto";
/// The user who is let into the workspace.
const WORKER: u32 = 1234;
/// Stands for the step where an effect belongs to none.
pub(super) const NO_STEP: &str = "-";

/// Verbs that have several effects.
const MANY: [&str; 6] =
    ["promote", "conclude", "stage", "conclude_in_place", "destroy_unchanged", "destroy_workspace"];

/// Begins the name of an effect of one of these that is not yet all of it.
pub(super) const WITHIN: char = '+';

/// What a child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    /// A whole transaction.
    Commit,
    /// A whole transaction on a target that somebody writes to meanwhile.
    Overwrite,
    /// A commit that fails at its commit point, is undone, and then rolled back.
    UndoneCommit,
    Rollback,
    /// A begin that fails at its last step, and is undone.
    UndoneBegin,
    /// Begin with a workspace at a place of its own, detach, resume, and a rollback.
    Detach,
    /// A whole transaction that goes over to a commit in place: somebody takes snapshots meanwhile, of the
    /// target and of the workspace. The workspace is at a place of its own.
    GoOver,
    /// Recovery of whatever there is.
    Recover,
}

const JOBS: [Job; 8] = [
    Job::Commit,
    Job::Overwrite,
    Job::UndoneCommit,
    Job::Rollback,
    Job::UndoneBegin,
    Job::Detach,
    Job::GoOver,
    Job::Recover,
];

/// A verb that changes something, and the step that it was called for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) step: String,
    pub(super) verb: String,
    /// Whether it was made to fail, and did nothing.
    pub(super) failed: bool,
}

/// The kernel, with an account of the effects of each thread, and an end to it.
pub(super) struct Deadly {
    kernel: Kernel,
}

impl fmt::Debug for Deadly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deadly")
    }
}

/// Where a thread is.
struct Here {
    /// Its case, by the dataset.
    case: String,
    /// The step that the library says it is at.
    step: String,
    effects: Vec<Effect>,
    /// The number of the effect after which it stops for ever; 0: never.
    stop: usize,
    /// The step whose first effect fails.
    fail: Option<&'static str>,
    /// What is done just before the first effect of a kind.
    before: Option<(&'static str, Hook)>,
}

type Hook = Box<dyn FnOnce()>;

impl Here {
    /// Takes note of an effect; says whether it was the last one.
    fn count(&mut self, verb: &str, failed: bool) -> bool {
        let (step, verb) = (self.step.clone(), verb.to_owned());
        self.effects.push(Effect { step, verb, failed });
        let stops = self.effects.len() == self.stop;
        if stops {
            self.rest();
        }
        stops
    }

    /// Says what it has done; it does nothing more.
    fn rest(&mut self) {
        let show = |e: &Effect| format!("{} {} {}", e.step, e.verb, e.failed);
        let effects: Vec<String> = self.effects.iter().map(show).collect();
        println!("{SAID}{}:{}", self.case, effects.join(","));
        self.stop = 0;
    }
}

thread_local! {
    static HERE: RefCell<Here> = RefCell::new(Here {
        case: String::new(),
        step: NO_STEP.to_owned(),
        effects: Vec::new(),
        stop: 0,
        fail: None,
        before: None,
    });
}

/// How many threads have come to rest.
static RESTING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Counts a thread when it ends, in whichever way.
struct Rest;

impl Drop for Rest {
    fn drop(&mut self) {
        *RESTING.0.lock().unwrap() += 1;
        RESTING.1.notify_all();
    }
}

/// Stops this thread until the process is killed.
fn stop() {
    drop(Rest);
    loop {
        std::thread::park();
    }
}

impl Deadly {
    pub(super) fn open(by: By) -> Arc<Self> {
        let kernel = match by {
            By::Programs => Kernel::open(),
            By::PlainCalls => Kernel::open_plain(),
        };
        Arc::new(Self { kernel: kernel.unwrap() })
    }

    fn question<T>(&self, call: impl FnOnce() -> T) -> T {
        call()
    }

    fn effect<T>(
        &self,
        verb: &'static str,
        call: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let hook = HERE.with_borrow_mut(|here| here.before.take_if(|(wanted, _)| *wanted == verb));
        if let Some((_, hook)) = hook {
            hook();
        }
        let failed =
            HERE.with_borrow_mut(|here| here.fail.take_if(|at| *at == here.step).is_some());
        observe(match MANY.contains(&verb) {
            true => |call| {
                let within = format!("{WITHIN}{call}");
                if HERE.with_borrow_mut(|here| here.count(&within, false)) {
                    stop();
                }
            },
            false => |_| {},
        });
        let result = match failed {
            true => Err(Fault { errno: Errno::IO, detail: Some("injected".to_owned()) }),
            false => call(),
        };
        if HERE.with_borrow_mut(|here| here.count(verb, failed)) {
            stop();
        }
        result
    }
}

forward_to_kernel!(Deadly);

/// Has something done just before the next effect of a kind that this thread has.
pub(super) fn before(verb: &'static str, hook: impl FnOnce() + 'static) {
    HERE.with_borrow_mut(|here| here.before = Some((verb, Box::new(hook))));
}

/// How many effects this thread has had since the last time.
pub(super) fn take_count() -> usize {
    HERE.with_borrow_mut(|here| std::mem::take(&mut here.effects).len())
}

/// Takes note of the step that the library says it is at.
struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == "step"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        struct Name;
        impl Visit for Name {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "step" {
                    HERE.with_borrow_mut(|here| here.step = format!("{value:?}"));
                }
            }
        }
        // Steps are not nested: one is entered as soon as it is made.
        span.record(&mut Name);
        Id::from_u64(1)
    }

    fn exit(&self, _: &Id) {
        HERE.with_borrow_mut(|here| here.step = NO_STEP.to_owned());
    }

    fn enter(&self, _: &Id) {}
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
}

/// One job in several cases, done by one process, with a thread for each. When each has had the
/// effect after which it is to be killed, the process is.
pub(super) struct Errand<'a> {
    /// The test that is run again.
    pub(super) test: &'a str,
    pub(super) job: Job,
    pub(super) by: By,
    /// The target's name in a case.
    pub(super) target: &'a str,
    /// The dataset of each case, and after how many effects it ends; 0: not before its time.
    pub(super) cases: Vec<(&'a str, usize)>,
}

impl Errand<'_> {
    /// Tells of the effects in each case.
    pub(super) fn run(&self) -> Vec<Vec<Effect>> {
        let Self { test, job, by, target, cases } = self;
        let list: Vec<String> = cases.iter().map(|(case, stop)| format!("{case}:{stop}")).collect();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(VARIABLE, format!("{job:?}\t{by:?}\t{target}\t{}", list.join(",")))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        let said = said.concat();
        let killed = output.status.signal() == Some(Signal::KILL.as_raw());
        let wanted = cases.iter().any(|(_, stop)| *stop > 0);
        assert!(killed == wanted && (killed || output.status.success()), "{job:?}: {said}");
        let effects = |(case, stop): &(&str, usize)| {
            let start = format!("{SAID}{case}:");
            let line = said.lines().find_map(|line| line.split_once(&start));
            let (_, line) = line.unwrap_or_else(|| panic!("{job:?} {case} {stop}: {said}"));
            let effects: Vec<Effect> = line.split(',').filter_map(effect).collect();
            assert!(*stop == 0 || effects.len() == *stop, "{job:?} {case} {stop}: {said}");
            effects
        };
        cases.iter().map(effects).collect()
    }
}

fn effect(said: &str) -> Option<Effect> {
    let [step, verb, failed] = said.split(' ').collect::<Vec<_>>()[..] else { return None };
    Some(Effect { step: step.to_owned(), verb: verb.to_owned(), failed: failed == "true" })
}

/// Does the job if this process was started for one; says whether it was.
pub(super) fn is_one() -> bool {
    let Ok(errand) = std::env::var(VARIABLE) else { return false };
    let [job, by, target, cases] = errand.split('\t').collect::<Vec<_>>()[..] else {
        panic!("{errand}")
    };
    let job = JOBS.into_iter().find(|known| format!("{known:?}") == job).unwrap();
    tracing::subscriber::set_global_default(Listener).unwrap();
    let by = [By::Programs, By::PlainCalls].into_iter().find(|known| format!("{known:?}") == by);
    let engine = Deadly::open(by.unwrap());
    let zfs = Zfs::on(Arc::clone(&engine) as Arc<dyn Engine>, None);
    let mut deadly = false;
    let start = |case: &str| {
        let (case, stop) = case.split_once(':').unwrap();
        let (case, stop) = (case.to_owned(), stop.parse().unwrap());
        deadly |= stop > 0;
        let (zfs, engine, target) = (zfs.clone(), Arc::clone(&engine), format!("{case}/{target}"));
        std::thread::spawn(move || {
            let _rest = Rest;
            let scope = case.parse().unwrap();
            let fail = match job {
                Job::UndoneCommit if target.ends_with(IN_PLACE) => Some("Receive"),
                Job::UndoneCommit => Some("RenameIntoPlace"),
                Job::UndoneBegin => Some("MountWorkspace"),
                _ => None,
            };
            HERE.with_borrow_mut(|here| (here.case, here.stop, here.fail) = (case, stop, fail));
            match job {
                Job::Recover => drop(zfs.recover(&scope).unwrap()),
                _ => transact(job, &zfs, &engine, &target.parse().unwrap()),
            }
            HERE.with_borrow_mut(Here::rest);
        })
    };
    let threads: Vec<_> = cases.split(',').map(start).collect();
    let resting = RESTING.0.lock().unwrap();
    drop(RESTING.1.wait_while(resting, |resting| *resting < threads.len()).unwrap());
    if deadly {
        kill_process(getpid(), Signal::KILL).unwrap();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    true
}

fn transact(job: Job, zfs: &Zfs, engine: &Deadly, target: &DatasetName) {
    let overwrite = job == Job::Overwrite;
    let begin = || match job {
        Job::GoOver | Job::Detach => {
            builder(zfs, target).workspace_for(WORKER, place(target)).begin()
        }
        _ => begin(zfs, target, overwrite),
    };
    if job == Job::UndoneBegin {
        let error = begin().unwrap_err();
        assert!(matches!(&error, BeginError::Failed { left, .. } if left.is_empty()), "{error}");
        return;
    }
    let transaction = begin().unwrap();
    write(transaction.path().join("file"), NEW).unwrap();
    if let Some(place) = engine.kernel.places(target).unwrap().first() {
        let file = place.path.join("file");
        match overwrite {
            true => write(file, OTHERS).unwrap(),
            // Changes the access time, where these are kept.
            false => drop(fs::read(file).unwrap()),
        }
    }
    match job {
        Job::GoOver => {
            let workspace = target.with_suffix(&transaction.id().workspace_suffix()).unwrap();
            for taken in [target, &workspace] {
                engine.kernel.snapshot(&taken.snapshot(AUTO).unwrap(), None).unwrap();
            }
            let receipt = transaction.commit().unwrap();
            assert_eq!(receipt.strategy, Strategy::InPlace);
        }
        Job::Commit | Job::Overwrite => drop(transaction.commit().unwrap()),
        Job::UndoneCommit => match transaction.commit().unwrap_err() {
            CommitError::Unchanged { transaction, .. } => transaction.rollback().unwrap(),
            error => panic!("{error}"),
        },
        Job::Detach => {
            let id = transaction.detach().unwrap();
            zfs.resume(target, id).unwrap().rollback().unwrap();
        }
        _ => transaction.rollback().unwrap(),
    }
}

/// Begins with all optional steps.
pub(super) fn begin(
    zfs: &Zfs,
    target: &DatasetName,
    overwrite: bool,
) -> Result<Transaction, BeginError> {
    match overwrite {
        true => builder(zfs, target).on_conflict(OnConflict::Overwrite).begin(),
        false => builder(zfs, target).begin(),
    }
}

/// Where the workspaces of a target are that somebody is let into.
pub(super) fn place(target: &DatasetName) -> PathBuf {
    Path::new("/run/zfs-txn-places").join(target.as_str())
}

fn builder<'a>(zfs: &'a Zfs, target: &'a DatasetName) -> TransactionBuilder<'a> {
    let builder = zfs.transaction(target).create_parents().snapshot("final");
    let builder = builder.ownership(Ownership::new().mode(0o750));
    match target.leaf() {
        IN_PLACE => builder.strategy(Strategy::InPlace).fence(),
        _ => builder,
    }
}
