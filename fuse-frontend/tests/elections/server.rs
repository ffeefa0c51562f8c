//! What is mounted: a bucket of some servers.

/// The connection string of a bucket.
pub(crate) struct Server(pub(crate) String);

impl Server {
    /// What to mount.
    pub(crate) fn url(&self) -> String {
        self.0.clone()
    }
}
