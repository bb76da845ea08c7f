//! A pool with some sites: datasets with a target below, on which cases take place at the same time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::child::{
    AUTO, Deadly, Effect, Errand, IN_PLACE, Job, NEW, OTHERS, before, begin, place, take_count,
};
use super::state::{State, compare};
use super::{By, Scenario, Target};
use crate::engine::{Attached, Engine, Place, PropertyValue};
use crate::name::DatasetName;
use crate::recovery::{Condition, Recovery, Unfinished};
use crate::test_pool::TestPool;
use crate::test_write::write;
use crate::txn::aftermath::after_step::Disk;
use crate::txn::recover::cases_below;
use crate::zfs::{Zfs, private_path};

/// What a target has before.
const OLD: &str = "old";

/// What a case comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Before,
    After,
    /// Detached: recovery leaves it alone, and it can be committed.
    Detached,
}

/// A process that is killed, and what is to come of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill<'a> {
    /// After how many effects.
    pub(super) number: usize,
    /// After how many effects recovery is killed, too.
    pub(super) second: Option<usize>,
    pub(super) end: End,
    /// Whether everything is mounted anew before recovery, as a boot does.
    pub(super) boot: bool,
    /// What is on disk after the first kill.
    pub(super) disk: Option<&'a Disk>,
}

/// Where a case takes place.
struct Site {
    dataset: DatasetName,
    target: DatasetName,
    /// Where the target is mounted.
    path: PathBuf,
}

impl Site {
    fn parent(&self) -> String {
        self.target.parent().unwrap().to_string()
    }
}

/// How many cases take place at once.
const SITES: usize = 8;

pub(super) struct Scene {
    scenario: Scenario,
    /// The full name of the test.
    test: String,
    pool: TestPool,
    engine: Arc<dyn Engine>,
    zfs: Zfs,
    root: DatasetName,
    /// Where cases take place, again and again.
    sites: Vec<Site>,
    /// Before and after a transaction that nobody has killed.
    before: State,
    after: State,
}

/// Calls for each item, all at once.
fn in_each<I: Sync, T: Send>(items: &[I], call: impl Fn(&I) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| call(item))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

impl Scene {
    pub(super) fn new(scenario: Scenario) -> Self {
        let pool = TestPool::new();
        let engine = Deadly::open(scenario.by) as Arc<dyn Engine>;
        let template = pool.dataset("template");
        pool.zfs(&["create", "-u", &template]);
        pool.zfs(&["allow", "root", "snapshot", &template]);
        Self {
            scenario,
            test: format!("txn::killed::on_zfs::{}", scenario.test),
            root: pool.name().parse().unwrap(),
            zfs: Zfs::on(Arc::clone(&engine), None),
            pool,
            engine,
            sites: Vec::new(),
            before: State::default(),
            after: State::default(),
        }
    }

    /// Has the job done without a kill, and tells of its effects.
    pub(super) fn learn(&mut self) -> Vec<Effect> {
        self.make(1);
        let sites = &self.sites[..1];
        let (site, name) = (&sites[0], sites[0].dataset.as_str());
        let state = || State::of_each(&self.pool, self.engine.as_ref(), &[name]).remove(0);
        let before = state();
        self.prepare(sites);
        let effects = self.errand(self.scenario.job, vec![(name, 0)]).remove(0);
        self.take_theirs(site, "learn");
        let mut after = state();
        match self.scenario.job {
            Job::Commit | Job::GoOver | Job::Recover => after.assert_no_trace("learn"),
            Job::Overwrite => {}
            _ => after.assert_same(&before, "learn"),
        }
        if self.scenario.job == Job::Detach {
            // As it is when it is committed after all.
            let transaction = begin(&self.zfs, &site.target, false).unwrap();
            write(transaction.path().join("file"), NEW).unwrap();
            transaction.commit().unwrap();
            after = state();
        }
        self.reset(site);
        (self.before, self.after) = (before, after);
        effects
    }

    /// Has all these cases. Returns the effects of recoveries that were killed, and how many effects
    /// each last recovery took.
    pub(super) fn run(
        &mut self,
        effects: &[Effect],
        kills: &[Kill<'_>],
    ) -> (Vec<Vec<Effect>>, Vec<usize>) {
        self.make(kills.len().min(SITES));
        let at_once = kills.chunks(SITES).map(|kills| self.run_at_once(effects, kills));
        let (killed, counts): (Vec<_>, Vec<_>) = at_once.unzip();
        (killed.concat(), counts.concat())
    }

    /// Has some cases, each from the beginning to its end: the job is killed, perhaps recovery, and
    /// then it is recovered.
    fn run_at_once(
        &self,
        effects: &[Effect],
        kills: &[Kill<'_>],
    ) -> (Vec<Vec<Effect>>, Vec<usize>) {
        let sites = &self.sites[..kills.len()];
        self.prepare(sites);
        let names: Vec<&str> = sites.iter().map(|site| site.dataset.as_str()).collect();
        let identities = State::identities(&self.pool, &names);
        let stops = names.iter().zip(kills).map(|(name, kill)| (*name, kill.number)).collect();
        let mut done = self.errand(self.scenario.job, stops);
        let mut titles: Vec<String> = Vec::new();
        for (kill, done) in kills.iter().zip(&done) {
            let (number, last) = (kill.number, &done[kill.number - 1]);
            let test = self.scenario.test;
            titles.push(format!("{test}: {number} ({} {})", last.step, last.verb));
            assert_eq!(done, &effects[..number], "{titles:?}");
        }
        self.check_moment(&identities, kills, &done, &titles);
        for ((site, kill), title) in sites.iter().zip(kills).zip(&titles) {
            self.check_sighting(site, kill, title);
        }
        sites.iter().zip(kills).filter(|(_, kill)| kill.boot).for_each(|(site, _)| self.boot(site));
        let pending = self.zfs.pending(&self.root).unwrap();
        let private: Vec<PathBuf> = pending.into_iter().map(|p| private_path(p.id)).collect();
        let mut killed = Vec::new();
        let second = names.iter().zip(kills).map(|(name, kill)| Some((*name, kill.second?)));
        if let Some(stops) = second.collect::<Option<Vec<_>>>() {
            killed = self.errand(Job::Recover, stops);
            for ((title, done), recovery) in titles.iter_mut().zip(&mut done).zip(&killed) {
                let last = &recovery[recovery.len() - 1];
                *title += &format!(", {} ({} {})", recovery.len(), last.step, last.verb);
                done.extend(recovery.iter().cloned());
            }
            self.check_moment(&identities, kills, &done, &titles);
        }
        let ends: Vec<_> = sites.iter().zip(kills).zip(&titles).collect();
        let counts = in_each(&ends, |((site, kill), title)| self.finish(site, kill.end, title));
        let left: Vec<_> = private.iter().filter(|path| path.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
        for (site, title) in sites.iter().zip(&titles) {
            let entries = fs::read_dir(place(&site.target)).into_iter().flatten();
            assert_eq!(entries.count(), 0, "{title}");
            self.take_theirs(site, title);
        }
        let states = State::of_each(&self.pool, self.engine.as_ref(), &names);
        for (at, (_, title)) in ends.iter().enumerate() {
            self.check_end(kills[at].end, &states[at], &identities[at], title);
        }
        // Recovering twice is recovering once.
        if self.scenario.keeps_predecessor() {
            in_each(&ends, |((site, _), title)| self.recover(&site.dataset, title));
            let again = State::of_each(&self.pool, self.engine.as_ref(), &names);
            again.iter().zip(states).for_each(|(again, state)| again.assert_same(&state, "again"));
        } else {
            take_count();
            self.recover(&self.root, "again");
            assert_eq!(take_count(), 0);
            assert!(self.zfs.pending(&self.root).unwrap().is_empty());
        }
        in_each(&ends, |((site, kill), _)| {
            if kill.end != End::Before {
                self.reset(site);
            }
        });
        (killed, counts)
    }

    /// Unmounts all that is below a site, and mounts what claims a path.
    fn boot(&self, site: &Site) {
        let columns = "name,canmount,mountpoint,zoned";
        let list = self.pool.zfs(&["list", "-Hpro", columns, site.dataset.as_str()]);
        let below = list.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
        for fields in below {
            for place in self.engine.places(&fields[0].parse().unwrap()).unwrap() {
                crate::mount::detach(&place.path).unwrap();
            }
            if fields[1..] == ["on", fields[2], "off"] && fields[2].starts_with('/') {
                self.pool.zfs(&["mount", fields[0]]);
            }
        }
    }

    pub(super) fn end(self) {
        self.pool.cleanup();
    }

    fn relative(&self) -> &'static str {
        match self.scenario.target {
            Target::Missing => "parent/new",
            Target::InPlace => IN_PLACE,
            Target::Own | Target::Inherited => "t",
        }
    }

    fn errand(&self, job: Job, cases: Vec<(&str, usize)>) -> Vec<Vec<Effect>> {
        let (by, target) = (self.scenario.by, self.relative());
        Errand { test: &self.test, job, by, target, cases }.run()
    }

    /// Has there be so many sites. In this process, all at once: a `zfs` command for each takes longer.
    fn make(&mut self, count: usize) {
        let site = |number: usize| {
            let leaf = format!("site-{number:04}");
            let dataset: DatasetName = self.pool.dataset(&leaf).parse().unwrap();
            let path = match self.scenario.target {
                Target::Own | Target::InPlace => self.pool.directory().join(&leaf),
                _ => self.pool.mountpoint().join(&leaf).join(self.relative()),
            };
            let target = format!("{dataset}/{}", self.relative()).parse().unwrap();
            Site { dataset, target, path }
        };
        let sites: Vec<Site> = (self.sites.len()..count).map(site).collect();
        if sites.is_empty() {
            return;
        }
        in_each(&sites, |site| {
            self.create(&site.dataset, &[]);
            if self.scenario.target != Target::Missing {
                self.create_target(site);
            }
        });
        if self.scenario.target != Target::Missing {
            let kept: Vec<String> =
                sites.iter().map(|site| format!("{}@kept", site.target)).collect();
            let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
            self.pool.zfs(&[&["snapshot"], &kept[..]].concat());
            self.pool.zfs(&[&["hold", "a-tag"], &kept[..]].concat());
        }
        self.sites.extend(sites);
    }

    /// Makes what the job needs beyond the target.
    fn prepare(&self, sites: &[Site]) {
        if self.scenario.job == Job::Recover {
            in_each(sites, |site| self.keep_predecessor(&site.target));
        }
    }

    /// Has the next case begin from the same as this one, where this has ended with a commit.
    fn reset(&self, site: &Site) {
        let target = site.target.as_str();
        if self.scenario.target != Target::Missing {
            write(site.path.join("file"), OLD).unwrap();
            fs::set_permissions(&site.path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // From here on, that is on disk: what is still on its way there would make differences.
        self.destroy(&format!("{target}@final"));
        for pending in self.zfs.pending(&site.dataset).unwrap() {
            self.destroy(&format!("{target}-old-{}", pending.id));
            self.destroy(&format!("{target}@{}", pending.id.look_leaf()));
            self.destroy(&pending.carrier);
        }
        if self.scenario.target != Target::Missing {
            return;
        }
        for (name, path) in [(target, &*site.path), (&*site.parent(), site.path.parent().unwrap())]
        {
            if path.exists() {
                crate::mount::detach(path).unwrap();
                self.destroy(name);
                fs::remove_dir(path).unwrap();
            }
        }
    }

    fn destroy(&self, name: &str) {
        if let Some(facts) = self.engine.facts(name).unwrap() {
            self.engine.destroy(name, facts.guid).unwrap();
        }
    }

    fn create(&self, name: &DatasetName, own: &[(String, PropertyValue)]) {
        self.engine.create(name, own).unwrap();
        let path = self.engine.facts(name.as_str()).unwrap().unwrap().mountpoint;
        let options = self.engine.mount_options(name).unwrap();
        let place = Place::new(None, path, options);
        let mount = self.engine.prepare_mount(name, place).unwrap();
        assert_eq!(self.engine.attach(mount).unwrap(), Attached::There { gap: None });
    }

    fn create_target(&self, site: &Site) {
        let text = |value: &str| PropertyValue::Text(value.into());
        let mut own =
            vec![("com.example:note", text("x")), ("com.sun:auto-snapshot", text("true"))];
        if self.scenario.by == By::PlainCalls {
            // As a commit leaves it.
            own.push(("canmount", PropertyValue::Number(1)));
        }
        match self.scenario.target {
            Target::Own | Target::InPlace => {
                own.push(("mountpoint", text(site.path.to_str().unwrap())))
            }
            _ => own.extend([
                ("atime", PropertyValue::Number(1)),
                ("relatime", PropertyValue::Number(0)),
            ]),
        }
        let own: Vec<_> = own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.create(&site.target, &own);
        write(site.path.join("file"), OLD).unwrap();
        let template = self.pool.dataset("template").parse().unwrap();
        self.engine.copy_permissions(&template, &site.target).unwrap();
    }

    /// Commits, and keeps the predecessor because of a snapshot, which is gone by now.
    fn keep_predecessor(&self, target: &DatasetName) {
        let transaction = begin(&self.zfs, target, false).unwrap();
        write(transaction.path().join("file"), NEW).unwrap();
        let late = format!("{target}-old-{}@late", transaction.id());
        let (engine, name) = (Arc::clone(&self.engine), late.parse().unwrap());
        before("conclude", move || engine.snapshot(&name, None).unwrap());
        let receipt = transaction.commit().unwrap();
        assert!(!receipt.leftovers.is_empty());
        self.destroy(&late);
    }

    /// The snapshot that somebody else took of the target is under its name, and has what the target had
    /// then; it goes, so that the rest is as without it.
    fn take_theirs(&self, site: &Site, title: &str) {
        if self.scenario.job != Job::GoOver {
            return;
        }
        let auto = format!("{}@{AUTO}", site.target);
        let seen = site.path.join(".zfs/snapshot").join(AUTO);
        assert_eq!(fs::read_to_string(seen.join("file")).unwrap(), OLD, "{title}");
        // Mounted by the look into it.
        crate::mount::detach(&seen).unwrap();
        self.destroy(&auto);
    }

    fn recover(&self, scope: &DatasetName, title: &str) -> Recovery {
        let pending = self.zfs.pending(scope).unwrap();
        let recovery = self.zfs.recover(scope).unwrap();
        // Who asks first is told what is done then.
        let told = |id| pending.iter().find(|told| told.id == id).and_then(|p| p.outlook.clone());
        for finished in &recovery.finished {
            assert_eq!(told(finished.id), Some(Ok(finished.outcome)), "{title}");
        }
        for Unfinished { pending, reason, error, .. } in &recovery.unfinished {
            match error {
                None => assert_eq!(told(pending.id), Some(Err(reason.clone())), "{title}"),
                // That a step fails can't be told before.
                Some(_) => assert!(told(pending.id).is_some_and(|told| told.is_ok()), "{title}"),
            }
        }
        for unfinished in &recovery.unfinished {
            let kept = self.scenario.keeps_predecessor()
                && unfinished.pending.condition == Condition::Leftover;
            assert!(kept, "{title}: {unfinished:?}");
        }
        recovery
    }

    /// Recovers to the end, and says how many effects that took.
    fn finish(&self, site: &Site, end: End, title: &str) -> usize {
        let recovery = self.recover(&site.dataset, title);
        let count = take_count();
        if end == End::Detached {
            let [untouched] = &recovery.untouched[..] else { panic!("{title}: {recovery:?}") };
            assert_eq!((&untouched.condition, count), (&Condition::Detached, 0), "{title}");
            self.zfs.resume(&site.target, untouched.id).unwrap().commit().unwrap();
        }
        count
    }

    fn check_end(&self, end: End, state: &State, identity: &State, title: &str) {
        if end == End::Before {
            compare(&state.facts, &self.before.facts, title);
            return compare(&state.identity, &identity.identity, title);
        }
        compare(&state.facts, &self.after.facts, title);
        let guid = |state: &State, name: &str| {
            state.identity.get(&(name.to_owned(), "guid".to_owned())).cloned()
        };
        let target = format!("CASE/{}", self.relative());
        let old = format!("{target}-old-ID");
        let look = format!("{target}@txn-ID-look");
        match self.scenario.keeps_predecessor() {
            true if self.scenario.target == Target::InPlace => {
                assert!(guid(state, &look).is_some(), "{title}")
            }
            true => assert_eq!(guid(state, &old), guid(identity, &target), "{title}"),
            false => state.assert_no_trace(title),
        }
        if self.scenario.job != Job::Recover {
            let same = guid(state, &target) == guid(identity, &target);
            let in_place =
                self.scenario.target == Target::InPlace || self.scenario.job == Job::GoOver;
            assert_eq!(same, in_place, "{title}");
        }
        let made = [
            format!("{target}@final"),
            format!("{target}@txn-ID"),
            look,
            "CASE/parent".to_owned(),
            old,
            target,
        ];
        let others = |state: &State| {
            let identity = state.identity.clone().into_iter();
            identity.filter(|((name, _), _)| !made.contains(name)).collect()
        };
        compare(&others(state), &others(identity), title);
    }

    /// At any moment, one dataset claims the target's mount point, the old one until the commit is
    /// concluded; and whoever opens it sees the old content or the new.
    fn check_moment(
        &self,
        identities: &[State],
        kills: &[Kill<'_>],
        done: &[Vec<Effect>],
        titles: &[String],
    ) {
        let columns = "guid,canmount,mountpoint,zoned,org.openzfs.systemd:ignore";
        let list = self.pool.zfs(&["list", "-Hpr", "-o", columns, self.root.as_str()]);
        let list: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
        for (at, site) in self.sites[..kills.len()].iter().enumerate() {
            let title = &titles[at];
            let path = site.path.to_str().unwrap();
            let claims = list
                .iter()
                .filter(|line| line[1..4] == ["on", path, "off"] && line[4] != "on")
                .map(|line| format!("{} (-)", line[0]))
                .collect::<Vec<_>>();
            let key = (format!("CASE/{}", self.relative()), "guid".to_owned());
            let old = identities[at].identity.get(&key).cloned();
            match done[at].iter().any(|effect| effect.verb == "conclude") {
                _ if self.scenario.by == By::PlainCalls => {
                    assert!(claims.len() <= 1, "{title}: {claims:?}")
                }
                false => assert_eq!(claims, Vec::from_iter(old), "{title}"),
                true => assert_eq!(claims.len(), 1, "{title}"),
            }
            let content = fs::read_to_string(site.path.join("file"));
            if self.scenario.target != Target::Missing {
                let whole = |text: &String| [OLD, NEW, OTHERS].contains(&text.as_str());
                assert!(content.as_ref().is_ok_and(whole), "{title}: {content:?}");
            } else if kills[at].end == End::Before {
                assert!(content.is_err(), "{title}: {content:?}");
            }
        }
    }

    /// What recovery finds is what the crash table says.
    fn check_sighting(&self, site: &Site, kill: &Kill<'_>, title: &str) {
        let Some(disk) = kill.disk else { return };
        let cases = cases_below(self.engine.as_ref(), &site.dataset).unwrap().cases;
        let found = cases.first().map(|found| {
            let mut sighting = found.survey(&self.engine).unwrap().unwrap().sighting;
            // Whether there is one depends on access times.
            sighting.look = false;
            sighting
        });
        assert_eq!(found, disk.sighting, "{title}");
    }
}
