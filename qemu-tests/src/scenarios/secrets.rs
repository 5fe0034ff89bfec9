//! What a node keeps to itself.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kubeboot::kubernetes::encryption;
use kubeboot::paths;
use kubeboot::token::Joiner;

use super::join::Tokens;
use super::workload;
use crate::kubectl::Kubectl;

/// Files that are to be found, as the pod that looks sees them, and what is in them.
const BAITED: [&str; 6] = [
    "/host/etc/kubeboot-bait",
    "/host/run/kubeboot-bait",
    "/host/var/lib/kubeboot-bait",
    "/host/tmp/kubeboot-bait",
    "/host/dev/shm/kubeboot-bait",
    BAITED_LOG,
];
/// The one that only root may read.
const BAITED_LOG: &str = "/host/var/log/kubeboot-bait";
const BAIT: &str = "no-secret-but-to-be-found";

/// Neither arguments of processes nor the journal nor other logs nor files that everybody may read hold a token, a private key, or a key of
/// the mesh or of the encrypted Secrets. And no core dump is written, which would have them all.
///
/// # Errors
/// One was found, or the search saw too little to find any.
pub(super) fn no_secret_stays(kubectl: &Kubectl, node: &str, role: Joiner, tokens: &Tokens) -> Result<()> {
    // units/sysctl.d has the kernel throw them away.
    let dumps = workload::on(kubectl, Some(node), &["cat", "/proc/sys/kernel/core_pattern"])?;
    ensure!(dumps.trim() == "|/bin/false", "{node} gives core dumps to: {dumps}");
    let crash = "mkdir /run/crash && cd /run/crash && ulimit -c unlimited && \
                 { sh -c 'kill -SEGV $$'; echo \"ended with $?\"; ls -A; rm -r /run/crash; } 2>&1";
    let left = workload::on(kubectl, Some(node), &["sh", "-c", crash])?;
    let left: Vec<&str> = left.lines().filter(|line| !line.contains("egmentation")).map(str::trim).collect();
    ensure!(left == ["ended with 139"], "a program that crashed on {node} left: {left:?}");
    let journal = workload::on(kubectl, Some(node), &["journalctl", "--boot", "--no-pager", "--output=cat"])?;
    // Of the pod that the look above was made by: it sees the machine's processes, and its files below /host.
    let pod = format!("node-{node}");
    let arguments = kubectl.exec(&pod, &["sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; true"])?;
    ensure!(arguments.contains("kubelet") && journal.contains("kubelet"), "the search of {node} saw too little");
    let mut secrets: Vec<String> =
        tokens.secrets().into_iter().chain(["PRIVATE KEY-----"]).map(str::to_owned).collect();
    secrets.extend(keys_of(kubectl, &pod, role)?);
    for secret in &secrets {
        ensure!(!arguments.contains(secret), "arguments of a process of {node} hold a secret");
        ensure!(!journal.contains(secret), "the journal of {node} holds a secret");
    }
    // One look for all of them, and for what shows that it finds something; logs are for nobody, whoever may read them. What is
    // sought for is not to be read in what the audit log keeps of this very look.
    let words = BASE64.encode([&[BAIT.to_owned()], &secrets[..]].concat().join("\n"));
    let baited = BAITED.join(" ");
    let search = format!(
        "echo {words} | base64 -d >/dev/shm/words; \
         for file in {baited}; do head -n 1 /dev/shm/words >$file && chmod 644 $file; done; chmod 600 {BAITED_LOG}; \
         {{ find /host/etc /host/run /host/var /host/tmp /host/dev/shm -xdev -type f -perm -004 -size -2048k \
         ! -path '*/kubelet/pods/*' -print0; find /host/var/log -xdev -type f ! -path '*/journal/*' -print0; }} | \
         sort -zu | xargs -0 grep -lF -f /dev/shm/words 2>/dev/null; rm {baited} /dev/shm/words"
    );
    let found = kubectl.exec(&pod, &["sh", "-c", &search])?;
    let found: Vec<&str> = found.lines().map(str::trim).collect();
    let missed: Vec<&str> = BAITED.into_iter().filter(|bait| !found.contains(bait)).collect();
    ensure!(
        missed.is_empty(),
        "the search of {node}'s files did not find {missed:?}, which it had put there: {found:?}"
    );
    // By whatever paths it was found: /etc is an overlay whose upper folder is seen, too.
    let others: Vec<&str> = found.into_iter().filter(|file| !file.ends_with("/kubeboot-bait")).collect();
    ensure!(others.is_empty(), "a secret stands in logs of {node} or in files that everybody may read: {others:?}");
    Ok(())
}

/// The keys of a node that are no PEM, as a text would show them: the mesh's in both common notations, and on a control plane
/// the one that Secrets are encrypted with.
fn keys_of(kubectl: &Kubectl, pod: &str, role: Joiner) -> Result<Vec<String>> {
    let mesh = format!("tail -c 32 /host{}", paths::MESH_KEY);
    let encryption = format!("sed -n 's/^ *secret: //p' /host{} 2>/dev/null; true", encryption::PATH);
    let mut keys = Vec::new();
    for (show, length) in [(format!("{mesh} | base64"), 44), (format!("{mesh} | xxd -p -c 64"), 64)] {
        let key = kubectl.exec(pod, &["sh", "-c", &show])?.trim().to_owned();
        ensure!(key.len() == length, "the mesh key of {pod} is shown in {} characters, not {length}", key.len());
        keys.push(key);
    }
    let of_secrets = kubectl.exec(pod, &["sh", "-c", &encryption])?;
    let of_secrets: Vec<&str> = of_secrets.lines().map(str::trim).collect();
    let expected = usize::from(role == Joiner::ControlPlane);
    ensure!(
        of_secrets.len() == expected && of_secrets.iter().all(|key| key.len() == 44),
        "{pod} has {} keys of Secrets, expected {expected} of 44 characters",
        of_secrets.len()
    );
    keys.extend(of_secrets.into_iter().map(str::to_owned));
    Ok(keys)
}
