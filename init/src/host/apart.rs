//! A test that runs in namespaces of its own. What it starts and makes there goes with it, however it ends: it is the
//! first process of its PID namespace, and its network and its mounts are of no other.

use std::path::PathBuf;
use std::time::Duration;

use crate::host::process;

/// Names the folder for the test's mounts, and so says that it runs apart already.
const FOLDER: &str = "KUBEBOOT_TEST_APART";
/// The whole test. Its own deadlines are shorter, and say what was seen.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs `test` apart: this very program again, with nothing but the test of this name, in new namespaces. `test` gets an
/// empty folder, where it may mount.
///
/// Needs no root, but a kernel that lets this user make a user namespace.
pub(crate) fn run(name: &str, test: impl FnOnce(PathBuf)) {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return test(folder.into());
    }
    // The test's mounts are not seen here, so what is removed here in the end is an empty folder.
    let folder = tempfile::tempdir().unwrap();
    let variable = format!("{FOLDER}={}", folder.path().display());
    let program = std::env::current_exe().unwrap();
    let namespaces = ["--user", "--map-root-user", "--net", "--mount", "--pid"];
    let apart = [
        // It ends when this process does, and takes with it what it has started.
        &["--pdeathsig", "KILL", "unshare"],
        &namespaces[..],
        &["--fork", "--kill-child=KILL", "env", &variable, program.to_str().unwrap()],
        // In the first thread, whose namespaces are those of the process.
        &[name, "--exact", "--ignored", "--nocapture", "--test-threads=1"],
    ]
    .concat();
    let ended = process::output("setpriv", &apart, LIMIT).unwrap_or_else(|failure| panic!("{failure}"));
    for line in ended.stdout.lines().chain(ended.stderr.lines()) {
        // Not from the line's start, where who counts results takes the inner run's for one more.
        println!("  {line}");
    }
    assert!(ended.status.success(), "the test failed apart: {}", ended.status);
    assert!(ended.stdout.contains("1 passed"), "no test is called {name}");
}
