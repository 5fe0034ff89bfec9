//! What the way through the balancer costs: throughput and latency against a direct connection, as ratios within one run,
//! and its memory. Run it with `cargo bench -p kubeboot --bench balancer`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark of a process, over sockets")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Rounds of each measurement; direct and balanced ones take turns, and medians are compared.
const ROUNDS: usize = 9;
/// Bytes that one round moves.
const BYTES: usize = 256 << 20;
/// Questions that one round asks.
const QUESTIONS: u32 = 5000;
/// Connections that stay open while memory is looked at.
const CONNECTIONS: usize = 500;

fn main() {
    let server = serve();
    let (mut child, through, _folder) = balancer(server);
    let idle = memory(&child);
    let ways = [server, through];
    let [direct, balanced] = medians(ways, throughput);
    println!(
        "throughput: {:.2} of a direct connection's ({:.0} MB/s of {:.0} MB/s)",
        direct.as_secs_f64() / balanced.as_secs_f64(),
        BYTES as f64 / balanced.as_secs_f64() / 1e6,
        BYTES as f64 / direct.as_secs_f64() / 1e6
    );
    let [direct, balanced] = medians(ways, latency);
    println!(
        "latency: {:.2} times a direct connection's ({:.1} µs for {:.1} µs, there and back)",
        balanced.as_secs_f64() / direct.as_secs_f64(),
        balanced.as_secs_f64() / f64::from(QUESTIONS) * 1e6,
        direct.as_secs_f64() / f64::from(QUESTIONS) * 1e6
    );
    let kept: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(through)).collect();
    println!("memory: {idle} KiB resident when idle, {} KiB with {CONNECTIONS} connections", memory(&child));
    drop(kept);
    child.kill().and_then(|()| child.wait()).expect("the balancer ends");
}

/// Answers each connection by its first byte: `e` sends bytes back, `s` sends [`BYTES`].
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&socket));
        }
    });
    address
}

fn answer(mut socket: &TcpStream) {
    let mut first = [0];
    let _ = socket.set_nodelay(true);
    if socket.read_exact(&mut first).is_err() {
        return;
    }
    let chunk = vec![7; 1 << 20];
    match first[0] {
        b's' => _ = (0..BYTES / chunk.len()).try_for_each(|_| socket.write_all(&chunk)),
        _ => _ = socket.write_all(&first).and_then(|()| std::io::copy(&mut &*socket, &mut &*socket).map(drop)),
    }
}

fn balancer(server: SocketAddr) -> (Child, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("endpoints"), kubeboot::plan::record::Endpoints::of([server]).text()).expect("a file");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubeboot"));
    command.arg("balancer").arg("--endpoints").arg(path("endpoints")).arg("--view").arg(path("view"));
    command.arg("--authority").arg(path("none")).stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null());
    let child = command.spawn().expect("kubeboot");
    drop(connect(address));
    (child, address, folder)
}

/// A connection over which a byte went both ways.
fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream.write_all(b"e").expect("an open connection");
    stream.read_exact(&mut [0]).expect("an open connection");
    stream
}

fn throughput(address: SocketAddr) -> Duration {
    let mut stream = TcpStream::connect(address).expect("a connection");
    let mut buffer = vec![0; 256 << 10];
    let start = Instant::now();
    stream.write_all(b"s").expect("an open connection");
    let mut left = BYTES;
    while left > 0 {
        left -= stream.read(&mut buffer).expect("an open connection");
    }
    start.elapsed()
}

fn latency(address: SocketAddr) -> Duration {
    let mut stream = connect(address);
    let mut byte = [1];
    let start = Instant::now();
    for _ in 0..QUESTIONS {
        stream.write_all(&byte).expect("an open connection");
        stream.read_exact(&mut byte).expect("an open connection");
    }
    start.elapsed()
}

fn medians(ways: [SocketAddr; 2], measure: fn(SocketAddr) -> Duration) -> [Duration; 2] {
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (way, taken) in ways.iter().zip(&mut taken) {
            taken.push(measure(*way));
        }
    }
    taken.map(|mut taken| {
        taken.sort();
        taken[ROUNDS / 2]
    })
}

/// Resident memory in KiB.
fn memory(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
