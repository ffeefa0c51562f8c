//! A mongod of a test's own, and the bucket on it that the test mounts.

use crate::driver;
use crate::mongod::{Mongod, replica_set};

/// The database and the bucket of every test.
pub(crate) const DB: &str = "files";
pub(crate) const BUCKET: &str = "docs";

/// A running server. It dies with this value, and what it stored as well.
pub(crate) struct Server {
    mongod: Mongod,
    set: bool,
}

impl Server {
    pub(crate) fn standalone() -> Self {
        Server { mongod: Mongod::start(&["--setParameter", "enableTestCommands=1"]), set: false }
    }

    /// A replica set of one member: transactions and change streams.
    pub(crate) fn set() -> Self {
        let mut members = replica_set(1);
        Server { mongod: members.remove(0), set: true }
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        self.mongod.tcp().to_string()
    }

    /// What to mount.
    pub(crate) fn url(&self) -> String {
        self.url_of(DB, BUCKET)
    }

    pub(crate) fn url_of(&self, db: &str, bucket: &str) -> String {
        let options = if self.set { "?replicaSet=rs" } else { "" };
        format!("mongodb://{}/{db}.{bucket}{options}", self.address())
    }

    /// Runs a script with PyMongo (see `driver.rs`), in which `client`, `db`, `files`, `chunks`
    /// and `bucket` are what they say. What it printed.
    #[track_caller]
    pub(crate) fn python(&self, script: &str, arguments: &[&str]) -> String {
        driver::run(&self.address(), script, arguments)
    }

    /// No chunk without its file, no file with other chunks than its length and chunk size call
    /// for, no document that is still on its way in or out, no names but those that lead to the
    /// root: once everything is unmounted, and unlinked files are reclaimed.
    #[track_caller]
    pub(crate) fn checks_clean(&self) {
        let found = self.python(driver::CHECK, &[]);
        assert_eq!(found, "", "the bucket is not clean");
    }
}

/// Makes two tests of each of these functions: one gets a standalone server, one a replica set of
/// one member.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod standalone {
            $(#[test]
            fn $test() {
                super::$test(&crate::server::Server::standalone());
            })*
        }
        mod set {
            $(#[test]
            fn $test() {
                super::$test(&crate::server::Server::set());
            })*
        }
    };
}
pub(crate) use on_both;
