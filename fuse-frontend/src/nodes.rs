//! A GridFS bucket named the way GridFUSE's command line did: `--node` (once for each member of a
//! replica set), `--db` and `--coll`, brought into one connection string.

/// The database and the bucket when nothing names them, as GridFUSE had it.
const NAMESPACE: (&str, &str) = ("gridfs", "fs");

/// The connection string of nodes, each `[mongodb://][USER:PASSWORD@]HOST[:PORT][/DB[/COLL]]`. What
/// is missing in one is taken from the first that says it; `db` and `coll` overrule all of them.
///
/// # Errors
/// One line that says what is wrong, without credentials.
pub fn connection_string(
    nodes: &[String],
    db: Option<&str>,
    coll: Option<&str>,
) -> Result<String, String> {
    let mut hosts = Vec::new();
    let (mut user, mut query) = (None, None);
    let (mut of_db, mut of_coll) = (None, None);
    for node in nodes {
        let parts = Parts::of(node)?;
        hosts.push(parts.hosts);
        user = user.or(parts.user);
        query = query.or(parts.query);
        of_db = of_db.or(parts.db);
        of_coll = of_coll.or(parts.coll);
    }
    let db = db.or(of_db).unwrap_or(NAMESPACE.0);
    let coll = coll.map(str::to_owned).or(of_coll).unwrap_or_else(|| NAMESPACE.1.to_owned());
    let user = user.map_or_else(String::new, |user| format!("{user}@"));
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    Ok(format!("mongodb://{user}{}/{db}.{coll}{query}", hosts.join(",")))
}

/// A connection string with its database and bucket overruled.
///
/// # Errors
/// One line: only a `mongodb://` source has them.
pub fn with_namespace(url: &str, db: Option<&str>, coll: Option<&str>) -> Result<String, String> {
    if db.is_none() && coll.is_none() {
        return Ok(url.to_owned());
    }
    if !url.starts_with("mongodb://") {
        return Err("--db and --coll are for mongodb:// sources".to_owned());
    }
    connection_string(&[url.to_owned()], db, coll)
}

/// The parts of a node.
struct Parts<'a> {
    user: Option<&'a str>,
    hosts: &'a str,
    db: Option<&'a str>,
    coll: Option<String>,
    query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(node: &'a str) -> Result<Self, String> {
        let rest = match node.split_once("://") {
            Some(("mongodb", rest)) => rest,
            Some((scheme, _)) => {
                return Err(format!("--node: {scheme}:// is no mongodb://HOST[/DB[/COLL]]"));
            }
            None => node,
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        // A password may hold a slash that nobody escaped: what is before the last `@` is no path.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        if hosts.is_empty() {
            return Err("--node: a host is missing; write HOST[:PORT][/DB[/COLL]]".to_owned());
        }
        let path = path.trim_matches('/');
        // Both ways to separate the two, and a bucket's name may hold further dots.
        let (db, coll) = match path.split_once(['/', '.']) {
            Some((db, coll)) => (db, Some(coll.replace('/', "."))),
            None => (path, None),
        };
        Ok(Parts { user, hosts, db: Some(db).filter(|db| !db.is_empty()), coll, query })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_become_one_connection_string() {
        for (nodes, db, coll, wanted) in [
            (&["h"][..], None, None, "mongodb://h/gridfs.fs"),
            (&["mongodb://h:1/d/c"], None, None, "mongodb://h:1/d.c"),
            (&["h/d/c/e"], None, None, "mongodb://h/d.c.e"),
            (&["h/d.c.e"], None, None, "mongodb://h/d.c.e"),
            (&["a", "b:2/d", "c/x/y"], None, None, "mongodb://a,b:2,c/d.y"),
            (&["a/d/c"], Some("db"), None, "mongodb://a/db.c"),
            (&["a/d/c"], None, Some("co.ll"), "mongodb://a/d.co.ll"),
            (
                &["u:p/w@a/d", "b?replicaSet=rs"],
                None,
                None,
                "mongodb://u:p/w@a,b/d.fs?replicaSet=rs",
            ),
        ] {
            let nodes: Vec<String> = nodes.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(connection_string(&nodes, db, coll).as_deref(), Ok(wanted));
        }
        assert!(connection_string(&["http://h".into()], None, None).is_err());
        assert!(connection_string(&["mongodb:///d".into()], None, None).is_err());
    }

    #[test]
    fn a_source_may_be_overruled() {
        let url = "mongodb://u:p@h/d.c?w=1";
        assert_eq!(with_namespace(url, None, None).as_deref(), Ok(url));
        assert_eq!(with_namespace(url, Some("x"), None).as_deref(), Ok("mongodb://u:p@h/x.c?w=1"));
        assert!(with_namespace("redis://h", None, Some("x")).is_err());
    }
}
