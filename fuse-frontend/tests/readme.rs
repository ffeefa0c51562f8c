//! The commands of the README are run, so that they stay true.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The README's code blocks for a shell, line by line.
fn shell_lines() -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let mut lines = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => lines.push(line.to_owned()),
            _ => {}
        }
    }
    lines
}

fn dbmount(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_dbmount")).args(arguments).output().expect("dbmount runs")
}

#[test]
fn the_first_command_mounts_without_a_server() {
    let line = shell_lines()
        .into_iter()
        .find(|line| line.contains("cargo run --release -- mount"))
        .expect("the README has a command that mounts");
    let (_, arguments) = line.split_once("-- ").expect("arguments for dbmount");
    let mut arguments: Vec<&str> = arguments.split_whitespace().collect();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path().to_str().expect("a plain path");
    *arguments.last_mut().expect("a directory") = dir;
    let mounted = dbmount(&arguments);
    assert!(mounted.status.success(), "{arguments:?}: {mounted:?}");
    let file = Path::new(dir).join("greeting");
    let written = std::fs::write(&file, "hello\n");
    let read = std::fs::read_to_string(&file);
    let unmounted = dbmount(&["umount", dir]);
    assert!(written.is_ok(), "{written:?}");
    assert_eq!(read.ok().as_deref(), Some("hello\n"));
    assert!(unmounted.status.success(), "{unmounted:?}");
}

#[test]
fn the_second_command_is_there_and_the_gate_calls_it() {
    assert!(shell_lines().contains(&".ci/test".to_owned()));
    let gate = std::fs::read_to_string(root().join(".ci/run")).expect(".ci/run");
    assert!(gate.contains("exec .ci/test"));
}

#[test]
fn every_mount_command_is_understood() {
    // A directory that does not exist ends each of them right after its arguments were understood.
    for line in shell_lines().iter().filter(|line| line.starts_with("dbmount mount")) {
        // As a shell takes it: without the quotes, and none of them has a blank inside.
        let line = line.split('#').next().unwrap_or_default().replace('\'', "");
        let mut arguments: Vec<&str> = line.split_whitespace().skip(1).collect();
        *arguments.last_mut().expect("a directory") = "/nonexistent/dbmount";
        let output = dbmount(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        assert!(said.contains("does not exist"), "{line}: {said}");
    }
}
