//! What the guest says, line by line (see `tests/crash/load.rs`), and what a check of it found.

use std::collections::{BTreeMap, BTreeSet};

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// All of one generation of one target.
    Whole {
        /// The target that the files name.
        target: String,
        /// The generation that they name.
        generation: u64,
        /// Whether it was written by a transaction that was to be rolled back.
        rolled_back: bool,
    },
    /// Anything else, described.
    Broken(String),
}

impl Content {
    fn read(words: &[&str]) -> Option<Self> {
        match words {
            ["broken", why] => Some(Self::Broken((*why).to_owned())),
            ["whole", target, generation, purpose] => Some(Self::Whole {
                target: (*target).to_owned(),
                generation: generation.parse().ok()?,
                rolled_back: *purpose != "commit",
            }),
            _ => None,
        }
    }
}

/// What was found at one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    /// Datasets and where they are mounted.
    pub(crate) mounts: Vec<(String, String)>,
    /// Datasets and the paths that a boot would mount them at.
    pub(crate) claims: Vec<(String, String)>,
    /// What is at each of the paths that something is mounted at.
    pub(crate) contents: BTreeMap<String, Content>,
    /// What snapshots hold that others took, by name; they are gone by now.
    pub(crate) snapshots: Vec<(String, Content)>,
    /// Datasets, snapshots, bookmarks, local properties, holds and permissions, a line each.
    pub(crate) state: BTreeSet<String>,
    /// Names in the directory that targets are mounted in.
    pub(crate) entries: BTreeSet<String>,
}

impl Facts {
    /// Adds what a line says behind `before` or `after`; whether it is known.
    pub(crate) fn add(&mut self, words: &[&str]) -> bool {
        match words {
            ["mount", dataset, path] => {
                self.mounts.push(((*dataset).to_owned(), (*path).to_owned()));
            }
            ["claim", dataset, path] => {
                self.claims.push(((*dataset).to_owned(), (*path).to_owned()));
            }
            ["content", path, words @ ..] => {
                let Some(content) = Content::read(words) else { return false };
                self.contents.insert((*path).to_owned(), content);
            }
            ["snapshot", name, words @ ..] => {
                let Some(content) = Content::read(words) else { return false };
                self.snapshots.push(((*name).to_owned(), content));
            }
            ["state", words @ ..] => {
                self.state.insert(words.join(" "));
            }
            ["entry", name] => {
                self.entries.insert((*name).to_owned());
            }
            _ => return false,
        }
        true
    }

    /// All of it, a line each, but for the claims of what is mounted where it claims to be.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let claims = self.claims.iter().filter(|claim| !self.mounts.contains(claim));
        self.mounts
            .iter()
            .map(|(dataset, path)| format!("{dataset} is mounted at {path}"))
            .chain(claims.map(|(dataset, path)| format!("{dataset} claims {path}")))
            .chain(self.contents.iter().map(|(path, content)| format!("{path}: {content:?}")))
            .chain(self.snapshots.iter().map(|(name, content)| format!("{name}: {content:?}")))
            .chain(self.state.iter().cloned())
    }

    /// The datasets mounted at a path.
    pub(crate) fn mounted_at<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        self.mounts.iter().filter(move |(_, at)| at == path).map(|(dataset, _)| &**dataset)
    }

    /// The filesystems of the pool.
    pub(crate) fn filesystems(&self) -> impl Iterator<Item = &str> {
        self.state.iter().filter_map(|line| line.strip_prefix("filesystem "))
    }
}

/// What is wrong, by kind.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Problems {
    /// Mounts that a boot should not have made, or should have.
    pub(crate) mounts: Vec<String>,
    /// How many workspaces are mounted at the paths that their own names give them.
    pub(crate) strays: usize,
    /// What was acknowledged, or there for ever, and is gone.
    pub(crate) lost: Vec<String>,
    /// Content of no generation, or of one that was given up.
    pub(crate) mixed: Vec<String>,
    /// What a transaction made and the recovery left.
    pub(crate) leftovers: Vec<String>,
}

impl Problems {
    /// All of them, a line each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let kinds = [
            ("wrong mount at boot", &self.mounts),
            ("lost", &self.lost),
            ("mixed", &self.mixed),
            ("left over", &self.leftovers),
        ];
        kinds
            .into_iter()
            .flat_map(|(kind, texts)| texts.iter().map(move |text| format!("{kind}: {text}")))
    }
}
