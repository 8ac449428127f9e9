//! What the tests share: a directory that goes away, and short ways to open a store.
#![allow(dead_code)] // every test binary uses its own part of this

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use blockwire_store::{FilterSpec, OpenOptions, Store, StoreError, open};

pub const SIZE: u64 = 8 << 20;

/// A directory below the build's own (a disk, unlike /tmp on some machines), removed at the end.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect()
}

pub fn filter(name: &str, params: &[(&str, &str)]) -> FilterSpec {
    FilterSpec { name: name.into(), params: map(params) }
}

pub fn sized(size: u64) -> OpenOptions {
    OpenOptions { create_size: Some(size), ..OpenOptions::default() }
}

pub fn read_only() -> OpenOptions {
    OpenOptions { read_only: true, ..OpenOptions::default() }
}

pub fn ram() -> Arc<dyn Store> {
    ram_with(&[])
}

pub fn ram_with(filters: &[FilterSpec]) -> Arc<dyn Store> {
    open("ram", "", &sized(SIZE), &map(&[]), filters).unwrap()
}

pub fn file(path: &str, options: &OpenOptions, extra: &[(&str, &str)]) -> Result<Arc<dyn Store>, StoreError> {
    open("file", path, options, &map(extra), &[])
}

/// What went wrong; for results whose store has no Debug.
pub fn failure(result: Result<Arc<dyn Store>, StoreError>) -> StoreError {
    match result {
        Ok(_) => panic!("the store was opened"),
        Err(error) => error,
    }
}

/// True when this process may mount things in a namespace of its own; says so on stderr when it may not.
pub fn may_mount() -> bool {
    let works = unshared("true").status().is_ok_and(|status| status.success());
    if !works {
        eprintln!("NOT RUN: this machine allows no mount namespace");
    }
    works
}

/// A shell script in a mount namespace of its own, as root or by way of a user namespace.
pub fn unshared(script: &str) -> std::process::Command {
    let mut command = std::process::Command::new("unshare");
    // SAFETY-free check of who we are: the owner of our own /proc entry.
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    command.arg(if root { "-m" } else { "-Urm" }).args(["sh", "-ec", script]);
    command
}
