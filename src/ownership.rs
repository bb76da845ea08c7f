//! Who owns the committed content: users, groups and modes, applied inside the workspace.

mod apply;
mod change;

use crate::error::BeginError;

/// The owner, group and mode that a commit gives to the content. What isn't named stays as it is.
///
/// By default it is about the root directory of the dataset; [`Ownership::whole_tree`] makes it
/// about everything in it. Symbolic links are never followed, also not one that is put in a file's
/// place meanwhile, and what is mounted inside is left alone.
///
/// What is as asked already is not touched: its change time, capabilities and access lists stay, and a
/// commit in place sends nothing for it.
///
/// What another user or group is given
/// - loses its set-user-ID and set-group-ID bits, unless it is a directory;
/// - loses its capabilities (capabilities(7)), unless nobody can run or write it afterwards who could not
///   before. That is so where the owner stays or becomes root, and the group either stays, or has the same
///   rights to write and execute as all others, and there is no access list.
///
/// # Errors
/// A commit that fails in [`Step::SetOwnership`](crate::Step::SetOwnership) has changed nothing of the
/// target. [`StepError::detail`](crate::StepError::detail) names the file, by its path in the dataset, with
/// bytes that are no text as escapes; and says if it is immutable or append-only, which root can't change
/// either. In the workspace what was done stays done.
///
/// # Privileges
/// `CAP_CHOWN`, `CAP_FOWNER`, `CAP_DAC_READ_SEARCH`, and `CAP_SETFCAP` where capabilities stay. In a user
/// namespace the owner before and after has to be mapped. Before Linux 6.6 `/proc` has to be mounted, and for
/// capabilities on any.
///
/// ```
/// use zfs_txn::Ownership;
///
/// let ownership = Ownership::new().user("www-data").group(1000).mode(0o2775);
/// # let _ = ownership;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Ownership {
    user: Option<Principal>,
    group: Option<Principal>,
    mode: Option<u32>,
    whole_tree: bool,
}

/// A user or group: by name, looked up in the system's databases at begin, or by number.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Principal {
    /// By name.
    Name(String),
    /// By number.
    Id(u32),
}

impl From<&str> for Principal {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<u32> for Principal {
    fn from(id: u32) -> Self {
        Self::Id(id)
    }
}

impl Ownership {
    /// Changes nothing until told what.
    pub fn new() -> Self {
        Self::default()
    }

    /// The owner, by name or number.
    pub fn user(mut self, user: impl Into<Principal>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The group, by name or number.
    pub fn group(mut self, group: impl Into<Principal>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// The permission bits, such as `0o2775`; bits above `0o7777` are ignored.
    ///
    /// For the whole tree it works as `chmod` does with `X`: a file gets the execute bits only if
    /// it had one of them, and set-id and sticky bits go to directories alone. Of a file with an access
    /// list the bits for the group are the list's mask, as for `chmod`.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode & 0o7777);
        self
    }

    /// Apply it to everything in the dataset. Costs a look at each file.
    pub fn whole_tree(mut self) -> Self {
        self.whole_tree = true;
        self
    }

    /// Looks the names up.
    pub(crate) fn resolve(&self) -> Result<Ids, BeginError> {
        let group = |name: &str| uzers::get_group_by_name(name).map(|group| group.gid());
        let group = |principal: &Principal| principal.resolve("group", group);
        Ok(Ids {
            user: self.user.as_ref().map(Principal::resolve_user).transpose()?,
            group: self.group.as_ref().map(group).transpose()?,
            mode: self.mode,
            whole_tree: self.whole_tree,
        })
    }
}

impl Principal {
    /// The user's number.
    pub(crate) fn resolve_user(&self) -> Result<u32, BeginError> {
        self.resolve("user", |name| uzers::get_user_by_name(name).map(|user| user.uid()))
    }

    fn resolve(
        &self,
        what: &'static str,
        find: impl Fn(&str) -> Option<u32>,
    ) -> Result<u32, BeginError> {
        let (id, name) = match self {
            // All ones means "leave it" to chown(2), so it is nobody's number.
            Self::Id(u32::MAX) => (None, "-1"),
            Self::Id(id) => (Some(*id), ""),
            Self::Name(name) => (find(name).filter(|id| *id != u32::MAX), name.as_str()),
        };
        id.ok_or_else(|| BeginError::UnknownPrincipal { what, name: name.to_owned() })
    }
}

/// An [`Ownership`] with its names looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ids {
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) mode: Option<u32>,
    pub(crate) whole_tree: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_errors_and_known_ones_are_found() {
        assert_eq!(Ownership::new().user("root").group("root").resolve().unwrap().user, Some(0));
        let error = Ownership::new().group("no such group").resolve().unwrap_err();
        assert!(error.to_string().contains("no group"), "{error}");
        assert!(Ownership::new().user(u32::MAX).resolve().is_err());
    }
}
