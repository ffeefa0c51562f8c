//! Real mounts of a volume on a real redis-server, by one mount and by two: locks, appends, ACLs,
//! the programs that lean on them, and suites from outside.

#[cfg(test)]
mod acls;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod locks;
#[cfg(test)]
#[path = "../live/mount.rs"]
#[allow(dead_code, reason = "the tests of the keyspace use all of it, this program a part")]
mod mount;
#[cfg(test)]
#[path = "../live/suites.rs"]
mod outside;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod refusals;
#[cfg(test)]
#[path = "../live/resp.rs"]
#[allow(dead_code, reason = "the tests of the keyspace use all of it, this program a part")]
mod resp;
#[cfg(test)]
#[path = "../live/server.rs"]
#[allow(dead_code, reason = "the tests of the keyspace use all of it, this program a part")]
mod server;
#[cfg(test)]
mod sharing;
#[cfg(test)]
#[path = "../live/shell.rs"]
#[allow(dead_code, reason = "the tests of the keyspace use all of it, this program a part")]
mod shell;
#[cfg(test)]
#[path = "../live/stack.rs"]
mod stack;
#[cfg(test)]
mod suites;
#[cfg(test)]
mod times;
#[cfg(test)]
mod together;
#[cfg(test)]
mod tools;

/// Makes a volume and returns what to mount.
#[cfg(test)]
#[track_caller]
fn volume(server: &server::Server) -> String {
    let url = format!("{}?volume=test", server.url());
    mount::dbmount(&["format", &url]).ok();
    url
}
