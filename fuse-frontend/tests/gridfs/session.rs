//! GridFUSE's README, command for command.

use std::fs;

use crate::mount::Mount;
use crate::server::{Server, on_both};
use crate::shell::{needs, try_sh};

on_both!(the_session_of_its_readme);

fn the_session_of_its_readme(server: &Server) {
    needs("tree", "tree");
    let mount = Mount::new(server);
    let dir = mount.point().parent().unwrap();
    let sh = |script: &str| crate::shell::sh(dir, script);
    assert_eq!(sh("ls mnt"), "");
    sh("mkdir -p mnt/path/to/nowhere");
    assert_eq!(sh("ls -l mnt | wc -l"), "2\n");
    sh("echo hithere > mnt/guy");
    assert_eq!(sh("cat mnt/guy"), "hithere\n");
    sh("ln -s path/to/nowhere/guy mnt/gal");
    let dangling = try_sh(dir, "cat mnt/gal");
    assert!(dangling.err.contains("mnt/gal: No such file or directory"), "{dangling:?}");
    sh("cp mnt/guy mnt/path/to/nowhere");
    let sum = "f8a2c6169117fbbee392bdd8f9cb623b";
    assert_eq!(
        sh("md5sum mnt/guy mnt/path/to/nowhere/guy mnt/gal"),
        format!("{sum}  mnt/guy\n{sum}  mnt/path/to/nowhere/guy\n{sum}  mnt/gal\n")
    );
    let drawn = "mnt\n|-- gal -> path/to/nowhere/guy\n|-- guy\n`-- path\n    `-- to\n        \
                 `-- nowhere\n            `-- guy\n";
    assert_eq!(sh("tree --noreport mnt"), drawn);
    // What it could not: remove for good, and see all of it again later.
    sh("rm mnt/guy");
    mount.end();
    let mount = Mount::new(server);
    assert_eq!(mount.sh("cat gal"), "hithere\n");
    assert!(!mount.at("guy").exists());
    assert_eq!(
        server.python(
            "print(sorted(it.filename for it in bucket.find({'filename': {'$exists': True}})))",
            &[]
        ),
        "['path/to/nowhere/guy']\n"
    );
    mount.sh("rm -r *");
    assert_eq!(fs::read_dir(mount.point()).unwrap().count(), 0);
    mount.end();
    server.checks_clean();
    assert_eq!(
        server.python("print(files.count_documents({}), chunks.count_documents({}))", &[]),
        "1 0\n",
        "the root is left"
    );
}
