//! A tree with all that is odd in it, and how trees are compared.

use std::path::Path;

use crate::shell::{needs, sh};

/// Makes the tree at `DIR/tree`: some 450 inodes, among them hard links, symlinks that lead
/// nowhere, all modes that matter, names of every sort, special files, contents on both sides of a
/// chunk's border, and times with nanoseconds.
pub(crate) fn make(dir: &Path) -> String {
    needs("python3", "python3");
    sh(
        dir,
        r#"mkdir tree; cd tree
        for d in a b c d e f g h; do
          mkdir -p lib/$d/deep/er
          for n in 0 1 2 3 4 5 6 7 8 9; do
            for at in lib/$d lib/$d/deep lib/$d/deep/er; do
              head -c $((n * 977)) /dev/urandom > $at/file$n.py
            done
            ln lib/$d/file$n.py lib/$d/deep/same$n
          done
          for n in 1 2 3 4 5 6 7 8; do ln -s ../$d/file$n.py lib/$d/link$n; done
        done
        mkdir -p empty/deeper odd 'odd/a directory'
        ln -s ../lib/a odd/link; ln -s nowhere odd/dangling; ln -s / odd/absolute
        echo '#!/bin/sh' > odd/run; chmod 755 odd/run; echo x > odd/secret; chmod 600 odd/secret
        echo x > odd/suid; chmod 4711 odd/suid; echo x > odd/none; chmod 000 odd/none
        mkdir odd/sticky odd/closed; chmod 1777 odd/sticky; chmod 500 odd/closed
        : > odd/nothing; echo x > odd/.hidden; echo x > 'odd/with blank'; echo x > 'odd/100%'
        echo x > odd/%2F; echo x > odd/%self; echo x > 'odd/$set'; echo x > odd/a.b.c
        echo x > 'odd/back\slash'; echo x > "odd/$(printf 'new\nline')"; echo x > odd/-f
        python3 -c 'import os
open(b"odd/\xff\xfe not utf-8", "w").write("x")
open("odd/\u00fc\u4e2d\U0001f600", "w").write("x")
open("odd/" + "n" * 255, "w").write("x")
os.symlink("t" * 4000, "odd/far")'
        for size in 262143 262144 262145 524288 2500000; do
          head -c $size /dev/urandom > odd/$size.bin
        done
        mkfifo odd/fifo
        if [ "$(id -u)" = 0 ]; then
          mknod odd/null c 1 3; mknod odd/loop b 7 0; chown 1234:5678 odd/secret odd/sticky
          chown -h 1234:5678 odd/dangling
        fi
        touch -d '2001-02-03 04:05:06.789012345' odd/run odd/2500000.bin odd/sticky
        touch -h -d '1999-12-31 23:59:59.5' odd/link odd/dangling
        touch -d '1969-12-31 12:00' odd/secret
        touch -d '1980-01-01' empty/deeper empty odd"#,
    );
    dir.join("tree").to_str().unwrap().to_owned()
}

/// Kind, mode, number of links (of what is no directory), owner, time, size (of files) and target
/// of everything below, for a comparison.
pub(crate) const LIST: &str = r"find . ! -name . \( -type d -printf '%P\t%y%m %U:%G %T@\n' \
    -o -type f -printf '%P\t%y%m %n %U:%G %T@ %s\n' \
    -o -printf '%P\t%y%m %n %U:%G %T@ %l\n' \) | LC_ALL=C sort";

/// Which names are the same file: the lines of names that share an inode.
pub(crate) const SAME: &str = r#"find . -type f -links +1 -printf '%i\t%P\n' | LC_ALL=C sort |
    awk -F'\t' '{ if ($1 == last) printf " %s", $2; else printf "\n%s", $2; last = $1 }' |
    LC_ALL=C sort"#;

/// Whether two directories hold the same.
#[track_caller]
pub(crate) fn assert_same(want: &Path, have: &Path, what: &str) {
    for list in [LIST, SAME] {
        let lists = [want, have].map(|place| sh(place, list));
        let differ = lists[0].lines().zip(lists[1].lines()).filter(|(want, have)| want != have);
        let differ: Vec<_> =
            differ.take(8).map(|(want, have)| format!("{have}\n    instead of {want}")).collect();
        assert!(lists[0] == lists[1], "{what}: {differ:#?}");
    }
    let special = "--exclude=fifo --exclude=null --exclude=loop";
    let diff = format!("diff -r --no-dereference {special} . '{}'", have.display());
    sh(want, &diff);
}
