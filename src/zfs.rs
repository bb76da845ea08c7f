//! [`Zfs`], the way in, and the builder that begins transactions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{Engine, Fault, PropertyValue, Settings};
use crate::errno::Errno;
use crate::error::{BeginError, OpenError, StepError};
use crate::kernel::Kernel;
use crate::name::{DatasetName, TransactionId};
use crate::ownership::{Ids, Ownership};
use crate::txn::Transaction;
use crate::txn::layout::Layout;
use crate::txn::plan::{GATE, Kind, MountpointGate, Plan, Shape, Step};
use crate::txn::stage::Order;

/// Where private mounts are attached: a directory that doesn't survive a reboot, as mounts don't.
const PRIVATE_ROOT: &str = "/run/zfs-txn";

/// ZFS, opened: begins transactions, on all datasets or on some.
///
/// Cheap to clone, and may be used by several threads at once. It holds no lock on anything.
#[derive(Debug, Clone)]
pub struct Zfs {
    engine: Arc<dyn Engine>,
    /// The datasets that may be touched, with everything below them; `None`: all.
    confinement: Option<Arc<[DatasetName]>>,
}

impl Zfs {
    /// Opens ZFS. Changes nothing.
    ///
    /// # Errors
    /// When the kernel module isn't loaded, or `/dev/zfs` may not be opened.
    ///
    /// # Privileges
    /// None here; [`TransactionBuilder::begin`] needs `CAP_SYS_ADMIN`.
    pub fn open() -> Result<Self, OpenError> {
        let kernel = Kernel::open().map_err(|Fault { errno, .. }| match errno {
            Errno::NOENT | Errno::NXIO => OpenError::NoModule,
            Errno::PERM | Errno::ACCES => OpenError::NotPermitted,
            errno => OpenError::Failed(errno),
        })?;
        Ok(Self { engine: Arc::new(kernel), confinement: None })
    }

    /// Opens ZFS for these datasets (or whole pools) and what is below them. Every other name is
    /// refused before any call is made.
    ///
    /// A workspace is made *beside* its target, so a target must lie below one of the names: it
    /// can't be one of them itself.
    ///
    /// # Errors
    /// As [`Zfs::open`]; and when a name is not a dataset's name.
    pub fn confined_to<I>(names: I) -> Result<Self, OpenError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let names: Result<Vec<DatasetName>, _> =
            names.into_iter().map(|name| name.as_ref().parse()).collect();
        let confinement = Some(Arc::from(names?));
        Ok(Self { confinement, ..Self::open()? })
    }

    /// Zfs on an engine of one's own, for tests.
    #[cfg(test)]
    pub(crate) fn on(engine: Arc<dyn Engine>, confinement: Option<&[DatasetName]>) -> Self {
        Self { engine, confinement: confinement.map(Arc::from) }
    }

    /// Prepares a transaction on `target`. Changes nothing until
    /// [`begin`](TransactionBuilder::begin).
    pub fn transaction<'a>(&'a self, target: &'a DatasetName) -> TransactionBuilder<'a> {
        TransactionBuilder {
            zfs: self,
            target,
            mountpoint: None,
            ownership: None,
            create_parents: false,
            final_snapshot: None,
        }
    }

    /// Whether a dataset may be created, renamed or destroyed: those named may not, only those
    /// below.
    fn check_confinement(&self, name: &DatasetName) -> Result<(), BeginError> {
        self.check(name, |root| name.is_within(root) && name != root)
    }

    /// Whether a dataset may be looked at.
    fn check_look(&self, name: &DatasetName) -> Result<(), BeginError> {
        self.check(name, |root| name.is_within(root))
    }

    fn check(
        &self,
        name: &DatasetName,
        allows: impl Fn(&DatasetName) -> bool,
    ) -> Result<(), BeginError> {
        match &self.confinement {
            Some(roots) if !roots.iter().any(allows) => {
                Err(BeginError::OutsideConfinement { name: name.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// The choices for a transaction; each has a default that suits most.
#[derive(Debug, Clone)]
#[must_use = "a transaction begins with begin()"]
pub struct TransactionBuilder<'a> {
    zfs: &'a Zfs,
    target: &'a DatasetName,
    mountpoint: Option<PathBuf>,
    ownership: Option<Ownership>,
    create_parents: bool,
    final_snapshot: Option<String>,
}

impl TransactionBuilder<'_> {
    /// The mountpoint property of a target to be created: an absolute path, `none` or `legacy`.
    /// Without it the target inherits its parent's. A target that exists keeps what it has.
    pub fn mountpoint(mut self, mountpoint: impl AsRef<Path>) -> Self {
        self.mountpoint = Some(mountpoint.as_ref().to_owned());
        self
    }

    /// Who is to own the content, and with which mode. Applied at commit, in the workspace.
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = Some(ownership);
        self
    }

    /// Create the target's missing parents, with inherited properties. A rollback removes them.
    pub fn create_parents(mut self) -> Self {
        self.create_parents = true;
        self
    }

    /// Take the snapshot `TARGET@name` of exactly the content that is committed.
    pub fn snapshot(mut self, name: impl Into<String>) -> Self {
        self.final_snapshot = Some(name.into());
        self
    }

    /// Finds out whether the target exists, and makes the workspace: a new dataset, or a snapshot
    /// of the target and a clone of that. It is mounted below `/run/zfs-txn`, where only this user
    /// gets.
    ///
    /// Two transaction groups for an init, three for an update, one more for each quota or
    /// reservation that the target has.
    ///
    /// A crash leaves `TARGET-txn-ID`, `TARGET@txn-ID` and created parents at most. The workspace is
    /// not mounted at the next boot.
    ///
    /// # Errors
    /// Bad input is found before anything is changed; a step that fails is undone. See
    /// [`BeginError`].
    ///
    /// # Privileges
    /// `CAP_SYS_ADMIN` in the initial user namespace: for channel programs and for mounts.
    pub fn begin(self) -> Result<Transaction, BeginError> {
        let span = tracing::info_span!("begin", target = %self.target);
        let _entered = span.enter();
        self.zfs.check_confinement(self.target)?;
        let id = random_id().map_err(|fault| look_failed(self.target.as_str(), fault))?;
        let ids = self.ownership.as_ref().map(Ownership::resolve).transpose()?;
        let order = match self.facts(self.target)? {
            Some(facts) => self.update(id, ids, &facts)?,
            None => self.init(id, ids)?,
        };
        for name in order.layout.datasets() {
            self.zfs.check_confinement(name)?;
        }
        tracing::debug!(kind = %order.kind, %id, "begin");
        Transaction::begin(Arc::clone(&self.zfs.engine), order)
    }

    fn facts(&self, name: &DatasetName) -> Result<Option<crate::engine::Facts>, BeginError> {
        self.zfs.engine.facts(name.as_str()).map_err(|fault| match fault.errno {
            Errno::NOENT => BeginError::NoSuchPool { pool: name.pool().to_owned() },
            _ => look_failed(name.as_str(), fault),
        })
    }

    /// The settings of a dataset, if what is cloned from it or created below it can be written.
    fn writable_settings(&self, name: &DatasetName) -> Result<Settings, BeginError> {
        let settings = self.zfs.engine.settings(name);
        let settings = settings.map_err(|fault| look_failed(name.as_str(), fault))?;
        let target = name.clone();
        match settings {
            Settings { key_loaded: false, .. } => Err(BeginError::KeyNotLoaded { target }),
            Settings { readonly: true, .. } => Err(BeginError::ReadOnly { target }),
            settings => Ok(settings),
        }
    }

    fn update(
        &self,
        id: TransactionId,
        ownership: Option<Ids>,
        facts: &crate::engine::Facts,
    ) -> Result<Order, BeginError> {
        let target = self.target.clone();
        if target.parent().is_none() {
            return Err(BeginError::PoolRoot { target });
        }
        if facts.volume {
            return Err(BeginError::Volume { name: target });
        }
        if facts.children > 0 {
            return Err(BeginError::HasChildren { target, count: facts.children });
        }
        if self.mountpoint.is_some() {
            return Err(BeginError::MountpointOfExisting { target });
        }
        let settings = self.writable_settings(&target)?;
        if let Some(wanted) = settings.own_text(GATE) {
            // Set, but not yet cleared, is finished.
            if settings.own_mountpoint() != Some(wanted) {
                let wanted = wanted.to_owned();
                return Err(BeginError::Unfinished { target, wanted });
            }
        }
        if settings.zoned {
            return Err(BeginError::Zoned { target });
        }
        if settings.encryption_root {
            return Err(BeginError::EncryptionRoot { target });
        }
        let leaf = self.final_snapshot.as_deref();
        let longest = self.zfs.engine.longest_snapshot(&target);
        let longest = longest.map_err(|fault| look_failed(target.as_str(), fault))?;
        let layout = Layout::new(&target, id, leaf, Vec::new(), longest)?;
        if let Some(leaf) = leaf {
            let name = target.snapshot(leaf)?;
            let found = self.zfs.engine.facts(name.as_str());
            if found.map_err(|fault| look_failed(name.as_str(), fault))?.is_some() {
                return Err(BeginError::SnapshotExists { name });
            }
        }
        let gate =
            MountpointGate::new(settings.own_mountpoint(), &facts.mountpoint, settings.canmount_on);
        let shape = Shape {
            kind: Kind::Update,
            missing_parents: 0,
            permissions: settings.permissions.is_some(),
            ownership: ownership.is_some(),
            final_snapshot: leaf.is_some(),
            gated: gate != MountpointGate::Open,
        };
        Ok(Order {
            id,
            kind: Kind::Update,
            layout,
            plan: Plan::new(shape),
            properties: gated_properties(settings.own.clone(), &gate),
            settings: Some(settings),
            gate,
            ownership,
            private_path: private_path(id),
            target: Some(facts.guid),
            target_origin: facts.origin,
            new_mounts: Vec::new(),
        })
    }

    fn init(&self, id: TransactionId, ownership: Option<Ids>) -> Result<Order, BeginError> {
        let target = self.target.clone();
        let (ancestor, missing_parents) = self.nearest_ancestor()?;
        let facts = self.facts(&ancestor)?;
        let facts = facts.ok_or_else(|| BeginError::NoParent { parent: ancestor.clone() })?;
        if facts.volume {
            return Err(BeginError::Volume { name: ancestor });
        }
        self.writable_settings(&ancestor)?;
        if let (Some(parent), false) = (missing_parents.last(), self.create_parents) {
            return Err(BeginError::NoParent { parent: parent.clone() });
        }
        let own = self.own_mountpoint()?;
        // A path is inherited with the names below it added; `none` and `legacy` as they are.
        let effective = own.clone().unwrap_or_else(|| facts.mountpoint.clone());
        let gate = MountpointGate::new(own.as_deref(), &effective, true);
        let is_path = |mountpoint: &str| mountpoint.starts_with('/');
        let parents = missing_parents.iter().filter(|_| is_path(&facts.mountpoint)).cloned();
        let new_mounts = parents.chain(is_path(&effective).then(|| target.clone())).collect();
        let leaf = self.final_snapshot.as_deref();
        let shape = Shape {
            kind: Kind::Init,
            missing_parents: missing_parents.len(),
            permissions: false,
            ownership: ownership.is_some(),
            final_snapshot: leaf.is_some(),
            gated: gate != MountpointGate::Open,
        };
        let own = own.map(|path| ("mountpoint".to_owned(), PropertyValue::Text(path)));
        Ok(Order {
            id,
            kind: Kind::Init,
            layout: Layout::new(&target, id, leaf, missing_parents, 0)?,
            plan: Plan::new(shape),
            properties: gated_properties(own.into_iter().collect(), &gate),
            gate,
            ownership,
            private_path: private_path(id),
            target: None,
            target_origin: None,
            new_mounts,
            settings: None,
        })
    }

    /// The nearest dataset above the target that exists, and those between, topmost first.
    fn nearest_ancestor(&self) -> Result<(DatasetName, Vec<DatasetName>), BeginError> {
        let mut missing = Vec::new();
        let mut name = self.target.clone();
        while let Some(parent) = name.parent() {
            self.zfs.check_look(&parent)?;
            if self.facts(&parent)?.is_some() {
                missing.reverse();
                return Ok((parent, missing));
            }
            missing.push(parent.clone());
            name = parent;
        }
        Err(BeginError::NoSuchPool { pool: self.target.pool().to_owned() })
    }

    fn own_mountpoint(&self) -> Result<Option<String>, BeginError> {
        let Some(mountpoint) = &self.mountpoint else {
            return Ok(None);
        };
        match mountpoint.to_str() {
            Some(text) if text == "none" || text == "legacy" => Ok(Some(text.to_owned())),
            Some(text)
                if text.starts_with('/') && !text.contains('\0') && can_be_made(mountpoint) =>
            {
                Ok(Some(text.to_owned()))
            }
            _ => Err(BeginError::Mountpoint { mountpoint: mountpoint.display().to_string() }),
        }
    }
}

/// Whether a directory is there, or nothing is that would keep it from being made.
fn can_be_made(path: &Path) -> bool {
    let too_long = |part: &std::ffi::OsStr| part.len() > crate::name::MAX_NAME_LEN;
    let nearest = path.ancestors().find(|ancestor| ancestor.exists());
    !path.iter().any(too_long) && nearest.is_some_and(Path::is_dir)
}

fn look_failed(subject: &str, Fault { errno, detail }: Fault) -> BeginError {
    let error = StepError { step: Step::Look, subject: subject.to_owned(), errno, detail };
    BeginError::Failed { error, left: Vec::new() }
}

/// The properties that the workspace starts with: it must not claim the target's mount point.
fn gated_properties(
    mut own: Vec<(String, PropertyValue)>,
    gate: &MountpointGate,
) -> Vec<(String, PropertyValue)> {
    own.retain(|(name, _)| name != GATE);
    if let Some(record) = gate.record() {
        own.retain(|(name, _)| name != "mountpoint");
        for (name, value) in [("mountpoint", "none"), (GATE, record)] {
            own.push((name.to_owned(), PropertyValue::Text(value.to_owned())));
        }
    }
    own
}

/// Where the workspace of a transaction is mounted.
pub(crate) fn private_path(id: TransactionId) -> PathBuf {
    Path::new(PRIVATE_ROOT).join(id.to_string())
}

fn random_id() -> Result<TransactionId, Fault> {
    let mut bytes = [0; 8];
    let len = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    match len {
        8 => Ok(TransactionId::from_bits(u64::from_ne_bytes(bytes))),
        _ => Err(Errno::IO.into()),
    }
}
