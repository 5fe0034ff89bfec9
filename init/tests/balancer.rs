//! `kubeboot balancer` as the process that systemd starts: what it holds open, and what it needs.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test of a process, over sockets")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kubeboot::host::wait;

const SOON: Duration = Duration::from_secs(10);

/// The process, ended when dropped.
struct Balancer {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Balancer {
    fn start(servers: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("endpoints"), kubeboot::plan::record::Endpoints::of(servers.iter().copied()).text())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kubeboot"))
            .arg("balancer")
            .arg("--endpoints")
            .arg(path("endpoints"))
            .arg("--authority")
            .arg(path("none"))
            .arg("--view")
            .arg(path("view"))
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Balancer { child, address, _folder: folder }
    }

    /// A connection over which a byte went both ways.
    fn connection(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// A line of its status, in KiB.
    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends every connection's bytes back, until the process ends.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    let _ = std::io::copy(&mut &socket, &mut &socket);
                })
                .unwrap();
        }
    });
    address
}

#[test]
fn five_hundred_connections_cost_little_and_leave_nothing_open() {
    // One that is gone, so that some connections find their server at the second try.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let balancer = Balancer::start(&[gone, echo()]);
    drop(balancer.connection());
    let (files, memory) = (balancer.open_files(), balancer.memory("RssAnon"));
    let connections: Vec<TcpStream> = (0..500).map(|_| balancer.connection()).collect();
    assert!(balancer.open_files() >= 1000, "two sockets each");
    let more = balancer.memory("RssAnon").saturating_sub(memory);
    assert!(more < 2048, "{more} KiB for 500 connections");
    drop(connections);
    // A check's socket comes and goes.
    let closed = wait::until("every socket to be closed", SOON, Duration::from_millis(2), || {
        let open = balancer.open_files();
        if open <= files + 1 { Ok(()) } else { Err(format!("{open} files are open, {files} were")) }
    });
    closed.unwrap();
}

#[test]
fn without_a_socket_from_systemd_it_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_kubeboot")).arg("balancer").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("let systemd start kubeboot-balancer.service"), "{said}");
}
